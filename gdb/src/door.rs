//! Where debuggers come in: a TCP port, a Unix socket, or standard input and output. Threads of
//! their own wait for connections and bytes; everything else happens on the machine's thread.

use std::fmt::{self, Display, Formatter};
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

/// Pieces that may wait to be looked at before a debugger is made to wait.
const WAITING: usize = 64;
/// The size of a piece.
const PIECE_BYTES: usize = 4096;
/// How long one that comes waits for one that may be leaving.
const GRACE: Duration = Duration::from_millis(500);
/// How long a debugger may leave an answer unread.
const PATIENCE: Duration = Duration::from_secs(10);

/// Where to wait for debuggers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// A TCP port; without a host, of the loopback interface.
    Tcp {
        /// A name or an address.
        host: Option<String>,
        /// The port; 0 lets the system choose.
        port: u16,
    },
    /// A socket in the file system.
    Unix(PathBuf),
    /// Standard input and output.
    Stdio,
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const FORMS: &str = "give [HOST:]PORT, unix:PATH or stdio";
        if text == "stdio" {
            return Ok(Address::Stdio);
        }
        if let Some(path) = text.strip_prefix("unix:") {
            return match path {
                "" => Err(FORMS.into()),
                path => Ok(Address::Unix(path.into())),
            };
        }
        let (host, port) = text.rsplit_once(':').unwrap_or(("", text));
        let port = port.parse().map_err(|_| FORMS.to_owned())?;
        let host = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
        Ok(Address::Tcp { host: (!host.is_empty()).then(|| host.to_owned()), port })
    }
}

/// Something that a door has seen.
pub(crate) enum Event {
    /// A debugger has come.
    Came(Peer),
    /// It has sent something.
    Sent(u64, Vec<u8>),
    /// It has gone.
    Left(u64),
}

/// The way back to a debugger.
pub(crate) struct Peer {
    /// Which of those that have come.
    pub(crate) number: u64,
    output: Box<dyn Output>,
}

impl Peer {
    pub(crate) fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.output.write_all(bytes)?;
        self.output.flush()
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.output.close();
    }
}

trait Output: Write + Send {
    fn close(&mut self);
}

impl Output for TcpStream {
    fn close(&mut self) {
        // It may be closed already.
        let _ = self.shutdown(Shutdown::Both);
    }
}

impl Output for io::Stdout {
    fn close(&mut self) {}
}

#[cfg(unix)]
impl Output for std::os::unix::net::UnixStream {
    fn close(&mut self) {
        // It may be closed already.
        let _ = self.shutdown(Shutdown::Both);
    }
}

/// Wakes the machine's thread if it sleeps.
pub type Bell = Box<dyn Fn() + Send + Sync>;

/// Tells the machine's thread of events.
#[derive(Clone)]
struct Porter {
    events: SyncSender<Event>,
    bell: std::sync::Arc<Bell>,
    /// Those who have come and not left.
    present: std::sync::Arc<AtomicUsize>,
}

impl Porter {
    /// False if nobody listens any more.
    fn tell(&self, event: Event) -> bool {
        let told = self.events.send(event).is_ok();
        (self.bell)();
        told
    }

    /// A debugger has come: tells so, and of what it sends until it leaves. Each has a thread of its
    /// own: what one says in leaving must be told before the next one comes.
    fn welcome(&self, number: u64, input: impl Read, output: Box<dyn Output>) {
        let since = Instant::now();
        while self.present.load(Ordering::SeqCst) > 0 && since.elapsed() < GRACE {
            thread::sleep(Duration::from_millis(2));
        }
        self.present.fetch_add(1, Ordering::SeqCst);
        self.listen(number, input, output);
        self.present.fetch_sub(1, Ordering::SeqCst);
    }

    fn listen(&self, number: u64, mut input: impl Read, output: Box<dyn Output>) {
        if !self.tell(Event::Came(Peer { number, output })) {
            return;
        }
        let mut piece = [0; PIECE_BYTES];
        while let Ok(count @ 1..) = input.read(&mut piece) {
            if !self.tell(Event::Sent(number, piece[..count].to_vec())) {
                return;
            }
        }
        self.tell(Event::Left(number));
    }
}

/// An open door.
pub struct Door {
    events: Receiver<Event>,
    seen: Option<Event>,
    name: String,
    /// Whether others than this host's users may come in.
    public: bool,
    socket: Option<PathBuf>,
}

impl Display for Door {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        if let Some(path) = &self.socket {
            // Somebody else may have removed it.
            let _ = std::fs::remove_file(path);
        }
    }
}

impl Door {
    /// Opens a door. `bell` is rung, on another thread, when something has happened.
    pub fn open(address: &Address, bell: Bell) -> io::Result<Door> {
        let (sender, events) = sync_channel(WAITING);
        let porter = Porter {
            events: sender,
            bell: std::sync::Arc::new(bell),
            present: std::sync::Arc::default(),
        };
        let mut door =
            Door { events, seen: None, name: String::new(), public: false, socket: None };
        match address {
            Address::Tcp { host, port } => door.open_port(host.as_deref(), *port, porter)?,
            Address::Unix(path) => door.open_socket(path.clone(), porter)?,
            Address::Stdio => {
                door.name = "standard input and output".into();
                thread::spawn(move || porter.welcome(0, io::stdin(), Box::new(io::stdout())));
            }
        }
        Ok(door)
    }

    fn open_port(&mut self, host: Option<&str>, port: u16, porter: Porter) -> io::Result<()> {
        let addresses: Vec<SocketAddr> = match host {
            Some(host) => (host, port).to_socket_addrs()?.collect(),
            None => vec![(IpAddr::V4(Ipv4Addr::LOCALHOST), port).into()],
        };
        let listener = TcpListener::bind(&addresses[..])?;
        let bound = listener.local_addr()?;
        self.name = bound.to_string();
        self.public = !bound.ip().is_loopback();
        thread::spawn(move || {
            for (number, stream) in listener.incoming().enumerate() {
                let Ok(stream) = stream else { continue };
                let porter = porter.clone();
                thread::spawn(move || welcome_tcp(&porter, number as u64, stream));
            }
        });
        Ok(())
    }

    #[cfg(unix)]
    fn open_socket(&mut self, path: PathBuf, porter: Porter) -> io::Result<()> {
        use std::os::unix::net::{UnixListener, UnixStream};
        // One that nobody listens at was left behind.
        let refused = UnixStream::connect(&path).err().map(|error| error.kind());
        if refused == Some(io::ErrorKind::ConnectionRefused) {
            std::fs::remove_file(&path)?;
        }
        let listener = UnixListener::bind(&path)?;
        self.name = format!("unix:{}", path.display());
        self.socket = Some(path);
        thread::spawn(move || {
            for (number, stream) in listener.incoming().enumerate() {
                let Ok(stream) = stream else { continue };
                let porter = porter.clone();
                thread::spawn(move || {
                    let patient = stream.set_write_timeout(Some(PATIENCE));
                    if let (Ok(()), Ok(output)) = (patient, stream.try_clone()) {
                        porter.welcome(number as u64, stream, Box::new(output));
                    }
                });
            }
        });
        Ok(())
    }

    #[cfg(not(unix))]
    fn open_socket(&mut self, _: PathBuf, _: Porter) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Whether others than this host's users may come in.
    pub fn is_public(&self) -> bool {
        self.public
    }

    /// Whether something has happened.
    pub(crate) fn has_event(&mut self) -> bool {
        if self.seen.is_none() {
            self.seen = self.events.try_recv().ok();
        }
        self.seen.is_some()
    }

    /// What has happened, waiting for it no longer than `limit`.
    pub(crate) fn next(&mut self, limit: Duration) -> Option<Event> {
        if self.seen.is_some() {
            return self.seen.take();
        }
        match self.events.recv_timeout(limit) {
            Ok(event) => Some(event),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => {
                // Standard input is over: nobody will come any more.
                thread::sleep(limit);
                None
            }
        }
    }
}

fn welcome_tcp(porter: &Porter, number: u64, stream: TcpStream) {
    let ready = stream.set_nodelay(true).and_then(|()| stream.set_write_timeout(Some(PATIENCE)));
    if let (Ok(()), Ok(output)) = (ready, stream.try_clone()) {
        porter.welcome(number, stream, Box::new(output));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_ports_hosts_and_paths() {
        let tcp = |host: Option<&str>, port| Ok(Address::Tcp { host: host.map(Into::into), port });
        assert_eq!("1234".parse(), tcp(None, 1234));
        assert_eq!(":1234".parse(), tcp(None, 1234));
        assert_eq!("0.0.0.0:1".parse(), tcp(Some("0.0.0.0"), 1));
        assert_eq!("[::1]:1".parse(), tcp(Some("::1"), 1));
        assert_eq!("unix:/tmp/s".parse(), Ok(Address::Unix("/tmp/s".into())));
        assert_eq!("stdio".parse(), Ok(Address::Stdio));
        for wrong in ["", "unix:", "localhost", "host:", "99999", "1234x"] {
            assert!(wrong.parse::<Address>().is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn without_a_host_a_port_is_open_to_this_host_only() -> io::Result<()> {
        let bell = || Box::new(|| {}) as Bell;
        let door = Door::open(&Address::Tcp { host: None, port: 0 }, bell())?;
        assert!(!door.is_public() && door.to_string().starts_with("127.0.0.1:"));
        let everywhere = Address::Tcp { host: Some("0.0.0.0".into()), port: 0 };
        assert!(Door::open(&everywhere, bell())?.is_public());
        Ok(())
    }

    #[test]
    fn one_has_left_before_the_next_comes() -> io::Result<()> {
        let mut door = Door::open(&Address::Tcp { host: None, port: 0 }, Box::new(|| {}))?;
        for n in 0..20 {
            drop(TcpStream::connect(door.to_string())?);
            let came = door.next(Duration::from_secs(10));
            assert!(matches!(&came, Some(Event::Came(peer)) if peer.number == 2 * n));
            let _next = TcpStream::connect(door.to_string())?;
            let left = door.next(Duration::from_secs(10));
            assert!(matches!(left, Some(Event::Left(number)) if number == 2 * n));
            let came = door.next(Duration::from_secs(10));
            assert!(matches!(&came, Some(Event::Came(peer)) if peer.number == 2 * n + 1));
            drop(came);
            let left = door.next(Duration::from_secs(10));
            assert!(matches!(left, Some(Event::Left(number)) if number == 2 * n + 1));
        }
        Ok(())
    }
}
