//! The `jwt_secret` file: the secret behind everything that the gateway seals or signs.
//!
//! One secret a line, the newest first; further lines still verify. The file is private (0600) and made once, atomically,
//! so that two gateways started together agree on it.

use std::fs::{self, File};
use std::io::{ErrorKind, Write as _};
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::StoreError;
use super::replace;

const NAME: &str = "jwt_secret";
const HINT: &str = "name a folder that the gateway may read and write with --state-dir";

/// Reads the secrets in `folder`, the newest first; where there is no file, makes one from `fresh`, 32 random bytes.
///
/// # Errors
/// [`StoreError`] if the file cannot be read or made, or holds no secret.
pub fn load_or_create(folder: &Path, fresh: [u8; 32]) -> Result<Vec<Vec<u8>>, StoreError> {
    let path = folder.join(NAME);
    let text = match fs::read(&path) {
        Err(e) if e.kind() == ErrorKind::NotFound => {
            create(folder, &path, fresh, rand::random())?;
            fs::read(&path)
        }
        read => read,
    };
    let text = text.map_err(|e| StoreError::new("read", &path, e).with_hint(HINT))?;
    let lines: Vec<Vec<u8>> = text.split(|b| *b == b'\n').filter(|l| !l.is_empty()).map(<[u8]>::to_vec).collect();
    if lines.is_empty() {
        let empty = std::io::Error::new(ErrorKind::InvalidData, "the file is empty");
        return Err(StoreError::new("use", &path, empty)
            .with_hint("remove the file to get a new secret; tokens and sessions made with the old one end"));
    }
    Ok(lines)
}

/// Writes the file under another name and links it into place, which fails if somebody else was first. `suffix` is
/// random: a process id would not tell two containers on one volume apart.
fn create(folder: &Path, path: &Path, fresh: [u8; 32], suffix: u64) -> Result<(), StoreError> {
    let failed = |e| StoreError::new("create", path, e).with_hint(HINT);
    fs::create_dir_all(folder).map_err(failed)?;
    let temporary = folder.join(format!(".{NAME}.{suffix:016x}"));
    let file = replace::create(&temporary).map_err(failed)?;
    let linked = fill(file, fresh).and_then(|()| fs::hard_link(&temporary, path));
    // Left behind it would only be clutter.
    let _ = fs::remove_file(&temporary);
    match linked {
        Err(e) if e.kind() == ErrorKind::AlreadyExists => Ok(()),
        // The name has to survive power loss as well, or the tokens and sessions made with the secret would not.
        other => other.and_then(|()| File::open(folder)?.sync_all()).map_err(failed),
    }
}

fn fill(mut file: File, fresh: [u8; 32]) -> std::io::Result<()> {
    writeln!(file, "{}", URL_SAFE_NO_PAD.encode(fresh))?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn a_secret_is_made_once_and_private() {
        let folder = std::env::temp_dir().join(format!("mcp-x-secret-{}", std::process::id()));
        let first = load_or_create(&folder, [1; 32]).unwrap();
        assert_eq!(load_or_create(&folder, [2; 32]).unwrap(), first);
        assert_eq!(first, [URL_SAFE_NO_PAD.encode([1; 32]).into_bytes()]);
        let mode = fs::metadata(folder.join(NAME)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        fs::write(folder.join(NAME), "new\nold\n").unwrap();
        assert_eq!(load_or_create(&folder, [2; 32]).unwrap(), [b"new".to_vec(), b"old".to_vec()]);
        fs::write(folder.join(NAME), "\n").unwrap();
        assert!(load_or_create(&folder, [2; 32]).is_err());
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 1, "no temporary file is left");
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn what_somebody_put_in_the_way_is_neither_followed_nor_taken_over() {
        let folder = std::env::temp_dir().join(format!("mcp-x-planted-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let (path, theirs) = (folder.join(NAME), folder.join("theirs"));
        let planted = folder.join(".jwt_secret.0000000000000007");
        fs::write(&theirs, "kept").unwrap();
        std::os::unix::fs::symlink(&theirs, &planted).unwrap();
        assert!(create(&folder, &path, [1; 32], 7).is_err());
        assert_eq!(fs::read(&theirs).unwrap(), b"kept");
        assert!(planted.is_symlink() && !path.exists());
        create(&folder, &path, [1; 32], 8).unwrap();
        create(&folder, &path, [2; 32], 9).unwrap();
        assert_eq!(fs::read(&path).unwrap(), format!("{}\n", URL_SAFE_NO_PAD.encode([1; 32])).into_bytes());
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn two_that_start_together_agree_on_one_secret() {
        let folder = std::env::temp_dir().join(format!("mcp-x-together-{}", std::process::id()));
        let start = std::sync::Barrier::new(8);
        let load = &|n| {
            start.wait();
            load_or_create(&folder, [n; 32]).unwrap()
        };
        let secrets: Vec<_> = std::thread::scope(|scope| {
            let loads: Vec<_> = (0..8).map(|n| scope.spawn(move || load(n))).collect();
            loads.into_iter().map(|load| load.join().unwrap()).collect()
        });
        assert!(secrets.iter().all(|secret| *secret == secrets[0]), "{secrets:?}");
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 1, "no temporary file is left");
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn an_unwritable_folder_says_what_to_do() {
        let error = load_or_create(Path::new("/proc/no-such-folder"), [1; 32]).unwrap_err();
        assert!(error.to_string().contains("hint: name a folder"), "{error}");
    }
}
