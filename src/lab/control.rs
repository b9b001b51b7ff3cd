//! How other processes speak to a lab: a socket in its directory, one request and one answer a connection.
//!
//! A command may take as long as it takes, and one lab does one thing at a time. So until there is an answer the lab says
//! again and again that it is there, with empty lines; silence means that its process does not run.

use std::fs;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::record::{LabError, holder};

/// How often a lab says that it is there.
pub const SIGN_EVERY: Duration = Duration::from_secs(2);

/// How long a lab may be silent.
const SILENCE_MAX: Duration = Duration::from_secs(10);

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

/// Sends a command to the lab of a directory and waits for its answer, for as long as the lab shows a sign of life.
pub fn ask(dir: &Path, request: &ControlRequest) -> Result<ControlReply, LabError> {
    ask_within(SILENCE_MAX, dir, request)
}

fn ask_within(silence_max: Duration, dir: &Path, request: &ControlRequest) -> Result<ControlReply, LabError> {
    let not_running = || {
        LabError::Process(format!(
            "no lab is running in {dir}; start it with `starling lab --dir {dir}`, or add --detach to leave it running",
            dir = dir.display()
        ))
    };
    let address = address(dir).map_err(|_| not_running())?;
    let mut stream = UnixStream::connect(&address.path).map_err(|_| not_running())?;
    let broken = |error: std::io::Error| {
        LabError::Process(match error.kind() {
            // Which of the two it is depends on the system.
            ErrorKind::WouldBlock | ErrorKind::TimedOut => silent(dir, silence_max),
            _ => format!("the lab in {} went away: {error}", dir.display()),
        })
    };
    stream.set_read_timeout(Some(silence_max)).map_err(broken)?;
    stream.set_write_timeout(Some(silence_max)).map_err(broken)?;
    write_line(&mut stream, request).map_err(broken)?;
    let mut answer = BufReader::new(&stream);
    loop {
        let mut line = String::new();
        answer.read_line(&mut line).map_err(broken)?;
        if line != "\n" {
            return serde_json::from_str(&line).map_err(|error| broken(error.into()));
        }
    }
}

/// What to do about a lab whose process does not run.
fn silent(dir: &Path, silence: Duration) -> String {
    let dir_shown = dir.display();
    let said = format!(
        "the lab in {dir_shown} has said nothing for {silence:?}; whether it did anything is unknown"
    );
    match holder(dir) {
        Some(process) => format!(
            "{said}. Its process {process} is stopped, or the machine is very busy: let it go on with `kill -CONT {process}`, or \
             end it and its nodes with `kill -KILL {process}` and begin again with `starling lab --dir {dir_shown}`"
        ),
        None => format!("{said}. Its process is stopped, or the machine is very busy"),
    }
}

/// Reads a request.
pub fn read_request(stream: &UnixStream) -> std::io::Result<ControlRequest> {
    read_line(stream)
}

/// Says that the lab is there, and at work.
pub fn write_sign(stream: &mut UnixStream) -> std::io::Result<()> {
    stream.write_all(b"\n")
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
    fn a_lab_that_shows_signs_of_life_is_waited_for_and_a_silent_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("lab.lock"), "4711").unwrap();
        let listener = listen(dir.path()).unwrap();
        let request = ControlRequest { line: "status".to_owned(), json: false, base64: false };
        let error = ask_within(Duration::from_millis(50), dir.path(), &request).unwrap_err().to_string();
        assert!(error.contains("nothing for 50ms") && error.contains("kill -CONT 4711"), "{error}");
        // Nor does anybody wait for a lab that does not even take the request.
        let long = ControlRequest { line: "x".repeat(8 << 20), ..request.clone() };
        let error = ask_within(Duration::from_millis(50), dir.path(), &long).unwrap_err().to_string();
        assert!(error.contains("nothing for 50ms"), "{error}");
        let lab = std::thread::spawn(move || {
            // Behind the two that have gone away.
            let (mut stream, _) = listener.incoming().map(|stream| (stream.unwrap(), ())).nth(2).unwrap();
            read_request(&stream).unwrap();
            (0..3).for_each(|_| write_sign(&mut stream).unwrap());
            write_reply(
                &mut stream,
                &ControlReply { out: "all is well".to_owned(), ..ControlReply::default() },
            )
        });
        assert_eq!(ask(dir.path(), &request).unwrap().out, "all is well");
        lab.join().unwrap().unwrap();
    }

    #[test]
    fn a_directory_without_a_lab_says_how_to_start_one() {
        let dir = tempfile::tempdir().unwrap();
        let request = ControlRequest { line: "status".to_owned(), json: false, base64: false };
        let error = ask(dir.path(), &request).unwrap_err().to_string();
        assert!(error.contains("no lab is running in") && error.contains("--detach"), "{error}");
    }
}
