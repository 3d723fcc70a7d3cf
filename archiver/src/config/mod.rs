//! The configuration: one YAML file, parsed once into a typed struct, validated before anything starts.
