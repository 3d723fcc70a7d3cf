//! What is reached directly, whatever proxy there is. Keys and tokens may cross `http://` to this machine, where nobody
//! else reads them: by a proxy they would leave it in the clear. And a proxy elsewhere reaches neither this machine nor
//! the services next door.

use url::{Host, Url};

/// As `NO_PROXY` has it: this machine, and what is next door, as the metadata services of machines and containers.
#[cfg(any(feature = "aws", feature = "reqwest", test))]
pub(crate) const DIRECT: &str = "localhost,127.0.0.0/8,::1,169.254.0.0/16,fd00:ec2::254,fd00:ec2::23";

/// Whether the URL names this machine: by a loopback address, or as `localhost`.
pub fn is_this_machine(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use hyper_util::client::proxy::matcher::Matcher;

    use super::*;

    /// By the matcher below both HTTP clients.
    #[test]
    fn what_is_this_machine_goes_by_no_proxy() {
        let matcher = Matcher::builder().all("http://proxy:3128").no(DIRECT).build();
        for (url, here) in [
            ("http://localhost:8200", true),
            ("https://LOCALHOST", true),
            ("http://127.0.0.1:1", true),
            ("http://127.255.0.9", true),
            ("http://127.1", true),
            ("http://[::1]:1", true),
            ("http://[0:0:0:0:0:0:0:1]:1", true),
            ("http://10.0.0.1", false),
            ("http://128.0.0.1", false),
            ("http://[::2]", false),
            ("http://localhost.example", false),
            ("https://notlocalhost", false),
            ("https://storage.example", false),
        ] {
            let url = Url::parse(url).unwrap();
            assert_eq!(is_this_machine(&url), here, "{url}");
            assert_eq!(matcher.intercept(&url.as_str().parse().unwrap()).is_none(), here, "{url}");
        }
        for metadata_service in [
            "http://169.254.169.254/latest",
            "http://169.254.131.5:8081",
            "http://[fd00:ec2::23]/v1/credentials",
        ] {
            assert!(matcher.intercept(&metadata_service.parse().unwrap()).is_none());
        }
    }
}
