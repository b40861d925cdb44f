//! Certificates for servers and clients on this machine, made with `openssl`.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::run::run;

/// An authority, and one certificate of it for 127.0.0.1, of a server and of a client.
#[derive(Clone, Debug)]
pub struct Certificates {
    pub ca: PathBuf,
    pub cert: PathBuf,
    pub key: PathBuf,
}

impl Certificates {
    /// # Panics
    /// If `openssl` fails.
    pub fn make(dir: &Path, name: &str) -> Self {
        let script = r#"cd "$1" && openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout $2-ca.key \
            -out $2-ca.pem -days 2 -subj "/CN=$2" && openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes \
            -keyout $2.key -out $2.csr -subj /CN=127.0.0.1 && printf 'subjectAltName=IP:127.0.0.1\nextendedKeyUsage=serverAuth,clientAuth\n' \
            >$2.ext && openssl x509 -req -in $2.csr -CA $2-ca.pem -CAkey $2-ca.key -CAcreateserial -out $2.pem -days 2 -extfile $2.ext"#;
        run(Command::new("sh").args(["-c", script, "sh"]).arg(dir).arg(name)).success();
        let file = |end: &str| dir.join(format!("{name}{end}"));
        Self { ca: file("-ca.pem"), cert: file(".pem"), key: file(".key") }
    }

    /// The files as options of a client, with a prefix for their names: `--cacert` without one.
    pub fn options(&self, prefix: &str) -> Vec<String> {
        let files = [("cacert", &self.ca), ("cert", &self.cert), ("key", &self.key)];
        files.iter().flat_map(|(name, file)| [format!("--{prefix}{name}"), file.display().to_string()]).collect()
    }
}
