//! How other processes speak to a lab: a socket in its directory, one request and one answer a connection.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::record::LabError;

const SOCKET: &str = "control.sock";

/// The most bytes of one request: a put of the largest value, in its costliest spelling.
const REQUEST_BYTES_MAX: u64 = 16 << 20;

/// The longest path that fits into the address of a Unix socket everywhere.
const PATH_BYTES_MAX: usize = 100;

/// A command for the lab.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ControlRequest {
    /// The command, as a line.
    pub line: String,
    /// Whether the answer is to be JSON.
    pub json: bool,
    /// Whether keys and values are base64.
    pub base64: bool,
}

/// What became of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ControlReply {
    /// For standard output.
    pub out: String,
    /// For standard error.
    pub err: String,
    /// Whether it did what it was to do.
    pub ok: bool,
}

/// The address of a lab's socket.
///
/// Addresses of Unix sockets are short. If the path is not, it is reached by way of a descriptor of the directory,
/// which therefore has to stay open.
struct Address {
    path: PathBuf,
    _dir: Option<fs::File>,
}

fn address(dir: &Path) -> std::io::Result<Address> {
    use std::os::fd::AsRawFd;
    let path = dir.join(SOCKET);
    if path.as_os_str().len() <= PATH_BYTES_MAX || !cfg!(target_os = "linux") {
        return Ok(Address { path, _dir: None });
    }
    let dir = fs::File::open(dir)?;
    let path = PathBuf::from(format!("/proc/self/fd/{}/{SOCKET}", dir.as_raw_fd()));
    Ok(Address { path, _dir: Some(dir) })
}

/// Begins to listen in the directory of a lab whose lock the caller holds: what is left of an older socket is in the way
/// of nobody.
pub fn listen(dir: &Path) -> Result<UnixListener, LabError> {
    let failed = |error| LabError::File { path: dir.join(SOCKET), error };
    let _ = fs::remove_file(dir.join(SOCKET));
    let address = address(dir).map_err(failed)?;
    UnixListener::bind(&address.path).map_err(failed)
}

/// Takes the socket away.
pub fn close(dir: &Path) {
    let _ = fs::remove_file(dir.join(SOCKET));
}

/// Sends a command to the lab of a directory and waits for its answer.
pub fn ask(dir: &Path, request: &ControlRequest) -> Result<ControlReply, LabError> {
    let not_running = || {
        LabError::Process(format!(
            "no lab is running in {dir}; start it with `starling lab --dir {dir}`, or add --detach to leave it running",
            dir = dir.display()
        ))
    };
    let address = address(dir).map_err(|_| not_running())?;
    let mut stream = UnixStream::connect(&address.path).map_err(|_| not_running())?;
    let broken =
        |error: std::io::Error| LabError::Process(format!("the lab in {} went away: {error}", dir.display()));
    write_line(&mut stream, request).map_err(broken)?;
    read_line(&stream).map_err(broken)
}

/// Reads a request.
pub fn read_request(stream: &UnixStream) -> std::io::Result<ControlRequest> {
    read_line(stream)
}

/// Writes the answer.
pub fn write_reply(stream: &mut UnixStream, reply: &ControlReply) -> std::io::Result<()> {
    write_line(stream, reply)
}

fn write_line(stream: &mut UnixStream, message: &impl Serialize) -> std::io::Result<()> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    stream.write_all(&line)
}

fn read_line<T: for<'a> Deserialize<'a>>(stream: &UnixStream) -> std::io::Result<T> {
    let mut line = String::new();
    BufReader::new(stream.take(REQUEST_BYTES_MAX)).read_line(&mut line)?;
    Ok(serde_json::from_str(&line)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn serve_one(listener: UnixListener) -> std::thread::JoinHandle<ControlRequest> {
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let request = read_request(&stream).unwrap();
            let reply = ControlReply { out: request.line.clone(), err: String::new(), ok: true };
            write_reply(&mut stream, &reply).unwrap();
            request
        })
    }

    #[test]
    fn a_command_is_answered_also_below_a_very_long_path() {
        let root = tempfile::tempdir().unwrap();
        let deep = root.path().join("d".repeat(120)).join("e".repeat(120));
        fs::create_dir_all(&deep).unwrap();
        for dir in [root.path(), deep.as_path()] {
            let served = serve_one(listen(dir).unwrap());
            let request = ControlRequest { line: "put k 'a b'\nc".to_owned(), json: true, base64: false };
            assert_eq!(ask(dir, &request).unwrap().out, request.line);
            assert_eq!(served.join().unwrap(), request);
        }
    }

    #[test]
    fn a_directory_without_a_lab_says_how_to_start_one() {
        let dir = tempfile::tempdir().unwrap();
        let request = ControlRequest { line: "status".to_owned(), json: false, base64: false };
        let error = ask(dir.path(), &request).unwrap_err().to_string();
        assert!(error.contains("no lab is running in") && error.contains("--detach"), "{error}");
    }
}
