//! What lets a restarted node end the connections of its former life: `DIR/reset`.
//!
//! See [`transport::afterlife`](crate::transport::afterlife). It is no part of what the node promised to anybody: if it is
//! lost or damaged a new one is made, and those who were connected find out a little later.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use crate::transport::ResetSecret;

/// The secret in the directory, which the caller has locked; made at the first start. Without one if the directory lets
/// none be kept.
pub(super) fn secret(data: &Path) -> Option<ResetSecret> {
    let path = data.join("reset");
    if let Some(kept) = fs::read(&path).ok().and_then(|bytes| bytes.try_into().ok()) {
        return Some(ResetSecret::new(kept));
    }
    make(&path)
        .inspect_err(|error| tracing::warn!(path = %path.display(), %error, "no secret for resets"))
        .ok()
}

fn make(path: &Path) -> io::Result<ResetSecret> {
    let mut secret = [0; ResetSecret::BYTES];
    getrandom::fill(&mut secret).map_err(|error| io::Error::other(error.to_string()))?;
    let draft = path.with_extension("new");
    let mut file = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&draft)?;
    file.write_all(&secret)?;
    file.sync_all()?;
    fs::rename(&draft, path)?;
    Ok(ResetSecret::new(secret))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_secret_of_a_directory_stays_and_is_for_its_owner_only() {
        let folder = tempfile::tempdir().unwrap();
        let first = secret(folder.path()).unwrap();
        assert_eq!(secret(folder.path()).as_ref(), Some(&first));
        let mode = fs::metadata(folder.path().join("reset")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        fs::write(folder.path().join("reset"), "torn").unwrap();
        let second = secret(folder.path()).unwrap();
        assert_ne!(second, first);
        assert_eq!(secret(folder.path()), Some(second));
    }
}
