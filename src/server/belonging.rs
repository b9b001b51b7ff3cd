//! To which cluster a data directory belongs, by name: `DIR/cluster`.
//!
//! Who a node is stands in its own durable state, and clusters tell each other apart by their ids once they talk. The
//! name is checked before that: a directory that was mounted in the wrong place must not make a node offer one cluster's
//! data under the certificate of another.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use thiserror::Error;

/// Why a data directory cannot be used under this certificate. Nothing was changed.
#[derive(Debug, Error)]
pub enum BelongingError {
    /// It was filled as a member of another cluster.
    #[error(
        "the data directory {} belongs to cluster {found}, not to {wanted}: start the node with --cluster {found}, or give \
         it a directory of its own", path.display()
    )]
    AnotherCluster {
        /// The directory.
        path: PathBuf,
        /// The name in it.
        found: String,
        /// The name in the node's certificate.
        wanted: String,
    },
    /// The note cannot be read or written.
    #[error("{}: {error}", path.display())]
    File {
        /// The note.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
}

/// Compares the cluster's name with the one in the directory, which the caller has locked; notes it at the first start.
pub(super) fn check(data: &Path, cluster: &str) -> Result<(), BelongingError> {
    let path = data.join("cluster");
    match fs::read_to_string(&path) {
        Ok(found) if found.trim_end() == cluster => Ok(()),
        Ok(found) => Err(BelongingError::AnotherCluster {
            path: data.to_owned(),
            found: found.trim_end().to_owned(),
            wanted: cluster.to_owned(),
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            note(&path, cluster).map_err(|error| BelongingError::File { path, error })
        }
        Err(error) => Err(BelongingError::File { path, error }),
    }
}

fn note(path: &Path, cluster: &str) -> io::Result<()> {
    let draft = path.with_extension("new");
    let mut file = File::create(&draft)?;
    writeln!(file, "{cluster}")?;
    file.sync_all()?;
    fs::rename(&draft, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_stays_with_the_cluster_that_it_was_first_used_for() {
        let folder = tempfile::tempdir().unwrap();
        check(folder.path(), "prod").unwrap();
        check(folder.path(), "prod").unwrap();
        let error = check(folder.path(), "test").unwrap_err().to_string();
        assert!(
            error.contains("belongs to cluster prod, not to test: start the node with --cluster prod"),
            "{error}"
        );
        check(folder.path(), "prod").unwrap();
    }
}
