//! End to end, against real servers: `cargo test --test e2e -- SUITE FILTER`, each as one likes. One program, since what
//! they have in common takes most of the time that each takes to be built. `--suites` lists them; `--install` gets the
//! servers that unit tests of other crates find installed.

mod archive_faults;
mod archive_import;
mod archive_keys;
mod archive_network;
mod archive_observed;
mod archive_once;
mod archive_secured;
mod archive_service;
mod archive_versions;
mod canaries;
mod cluster_state;
mod faults_filesystem;
mod faults_s3;
mod kafka_admin;
mod kafka_client;
mod keys;
mod last_snapshots;
mod replica;
mod restore;
mod restore_as_of;
mod restore_cold;
mod restore_faults;
mod restore_matrix;
mod restore_produce;
mod restore_schemas;
mod restore_secured;
mod restore_topics;
mod runbooks;
mod segment_files;
mod shim;
mod smoke_versions;
mod stores;
mod three_brokers;
mod tier;
mod tier_s3;
mod upgrade;
mod varve_command;

use std::process::ExitCode;

use varve_tests::Suite;

type Named = (&'static str, fn() -> Suite);

/// One file each.
const SUITES: &[Named] = &[
    ("archive_faults", archive_faults::suite),
    ("archive_import", archive_import::suite),
    ("archive_keys", archive_keys::suite),
    ("archive_network", archive_network::suite),
    ("archive_observed", archive_observed::suite),
    ("archive_once", archive_once::suite),
    ("archive_secured", archive_secured::suite),
    ("archive_service", archive_service::suite),
    ("archive_versions", archive_versions::suite),
    ("canaries", canaries::suite),
    ("cluster_state", cluster_state::suite),
    ("faults_filesystem", faults_filesystem::suite),
    ("faults_s3", faults_s3::suite),
    ("kafka_admin", kafka_admin::suite),
    ("kafka_client", kafka_client::suite),
    ("keys", keys::suite),
    ("last_snapshots", last_snapshots::suite),
    ("replica", replica::suite),
    ("restore", restore::suite),
    ("restore_as_of", restore_as_of::suite),
    ("restore_cold", restore_cold::suite),
    ("restore_faults", restore_faults::suite),
    ("restore_matrix", restore_matrix::suite),
    ("restore_produce", restore_produce::suite),
    ("restore_schemas", restore_schemas::suite),
    ("restore_secured", restore_secured::suite),
    ("restore_topics", restore_topics::suite),
    ("runbooks", runbooks::suite),
    ("segment_files", segment_files::suite),
    ("shim", shim::suite),
    ("smoke_versions", smoke_versions::suite),
    ("stores", stores::suite),
    ("three_brokers", three_brokers::suite),
    ("tier", tier::suite),
    ("tier_s3", tier_s3::suite),
    ("upgrade", upgrade::suite),
    ("varve_command", varve_command::suite),
];

fn main() -> ExitCode {
    let mut args: Vec<String> = std::env::args().collect();
    if args.iter().any(|arg| arg == "--suites") {
        SUITES.iter().for_each(|(name, _)| println!("{name}"));
        return ExitCode::SUCCESS;
    }
    if args.iter().any(|arg| arg == "--install") {
        return match varve_tests::install_for_unit_tests() {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("{error:#}");
                ExitCode::FAILURE
            }
        };
    }
    let named = SUITES.iter().find(|(name, _)| args.get(1).is_some_and(|arg| arg == name));
    let chosen = match named {
        Some(suite) => {
            args.remove(1);
            std::slice::from_ref(suite)
        }
        None => SUITES,
    };
    let failed = chosen.iter().filter(|(_, suite)| !suite().passes(&args)).count();
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
