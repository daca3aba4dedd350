//! A server that answers with as many bytes as it is asked for, the simplest that there is, on the machine or copied into
//! a sandbox; and plain copies from one socket to another, as a proxy would make them that did nothing else.

use anyhow::{Context as _, Result, bail, ensure};
use std::convert::Infallible;
use std::io::{self, BufRead as _, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;

/// What is read or written at once.
const CHUNK: usize = 128 << 10;
/// The longest head that is sent here.
const HEAD: usize = 8 << 10;

/// Answers `GET /N` with N bytes on each connection to a port of loopback, for ever. Says where it listens.
pub(crate) fn serve(port: u16) -> Result<Infallible> {
    let listener = TcpListener::bind(("127.0.0.1", port)).context("listen on loopback")?;
    let mut stdout = io::stdout();
    writeln!(stdout, "{}", listener.local_addr()?).and_then(|()| stdout.flush()).context("say where")?;
    loop {
        let (stream, _) = listener.accept().context("accept a connection")?;
        stream.set_nodelay(true)?;
        // A caller that leaves is no failure of the server's.
        thread::spawn(move || drop(answer(stream)));
    }
}

fn answer(mut stream: TcpStream) -> Result<()> {
    let bytes = vec![b'x'; CHUNK];
    let mut head = Vec::with_capacity(HEAD);
    loop {
        while !head.ends_with(b"\r\n\r\n") {
            let mut part = [0; HEAD];
            let read = stream.read(&mut part)?;
            ensure!(read > 0 && head.len() + read <= HEAD, "no whole head");
            head.extend_from_slice(&part[..read]);
        }
        let path = std::str::from_utf8(&head)?.split(' ').nth(1).unwrap_or_default();
        let mut left: usize = path.trim_start_matches('/').parse()?;
        let mut out = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: application/octet-stream\r\ncontent-length: {left}\r\n\r\n"
        )
        .into_bytes();
        // A short answer is one write, as a server's that knows what it is doing.
        let first = left.min(CHUNK);
        out.extend_from_slice(&bytes[..first]);
        stream.write_all(&out)?;
        left -= first;
        while left > 0 {
            let next = left.min(CHUNK);
            stream.write_all(&bytes[..next])?;
            left -= next;
        }
        head.clear();
    }
}

/// This program serving bytes on the machine itself, in a process of its own; ended when dropped.
pub(crate) struct Served {
    child: Child,
    pub(crate) address: SocketAddr,
}

impl Served {
    pub(crate) fn start() -> Result<Self> {
        let program = std::env::current_exe().context("this program's path")?;
        #[expect(clippy::disallowed_methods, reason = "what is measured serves in a process of its own")]
        let mut command = Command::new(program);
        command.args(["serve-bytes", "0"]).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn().context("start this program again")?;
        let mut line = String::new();
        let stdout = child.stdout.take().context("its stdout")?;
        BufReader::new(stdout).read_line(&mut line).context("read where it listens")?;
        match line.trim().parse() {
            Ok(address) => Ok(Self { child, address }),
            Err(_) => bail!("it said {line:?} instead of where it listens: {}", child.wait()?),
        }
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        // It may be gone already, which is all that is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Puts two plain copies before a server, over a Unix socket between them as Sandcrab has one: the address of the first.
pub(crate) fn two_hops(to: SocketAddr, scratch: &Path) -> Result<SocketAddr> {
    let path = scratch.join("hop");
    let inner = UnixListener::bind(&path).context("listen on a Unix socket")?;
    let outer = TcpListener::bind("127.0.0.1:0").context("listen on loopback")?;
    let address = outer.local_addr()?;
    thread::spawn(move || -> Result<Infallible> {
        loop {
            let (near, far) = (inner.accept()?.0, TcpStream::connect(to)?);
            far.set_nodelay(true)?;
            join(near, far)?;
        }
    });
    thread::spawn(move || -> Result<Infallible> {
        loop {
            let (near, far) = (outer.accept()?.0, UnixStream::connect(&path)?);
            near.set_nodelay(true)?;
            join(near, far)?;
        }
    });
    Ok(address)
}

/// What both kinds of sockets can do.
trait Socket: Read + Write + Send + Sized + 'static {
    fn twin(&self) -> io::Result<Self>;
    fn end(&self) -> io::Result<()>;
}

impl Socket for TcpStream {
    fn twin(&self) -> io::Result<Self> {
        self.try_clone()
    }

    fn end(&self) -> io::Result<()> {
        self.shutdown(Shutdown::Write)
    }
}

impl Socket for UnixStream {
    fn twin(&self) -> io::Result<Self> {
        self.try_clone()
    }

    fn end(&self) -> io::Result<()> {
        self.shutdown(Shutdown::Write)
    }
}

/// Copies between two sockets, both ways, on threads of their own.
fn join(near: impl Socket, far: impl Socket) -> io::Result<()> {
    let (near_twin, far_twin) = (near.twin()?, far.twin()?);
    thread::spawn(move || copy(near_twin, far_twin));
    thread::spawn(move || copy(far, near));
    Ok(())
}

/// Reads and writes until the end. Not `std::io::copy`, which has the kernel splice: that is no plain copy.
fn copy(mut from: impl Socket, mut to: impl Socket) -> io::Result<()> {
    let mut buffer = vec![0; CHUNK];
    loop {
        match from.read(&mut buffer)? {
            0 => return to.end(),
            read => to.write_all(&buffer[..read])?,
        }
    }
}

/// A connection that asks such a server, straight or through what stands before it.
pub(crate) struct Asker {
    stream: TcpStream,
    host: String,
    buffer: Vec<u8>,
}

impl Asker {
    /// Connects to `address`, to ask for what `host` has.
    pub(crate) fn connect(address: SocketAddr, host: &str) -> Result<Self> {
        let stream = TcpStream::connect(address).with_context(|| format!("connect to {address}"))?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, host: host.to_owned(), buffer: vec![0; 2 * CHUNK] })
    }

    /// Asks for so many bytes and reads them all.
    pub(crate) fn get(&mut self, bytes: usize) -> Result<()> {
        let request = format!("GET /{bytes} HTTP/1.1\r\nhost: {}\r\n\r\n", self.host);
        self.stream.write_all(request.as_bytes()).context("ask")?;
        let mut read = 0;
        let body = loop {
            match self.stream.read(&mut self.buffer[read..]).context("read an answer's head")? {
                0 => bail!("the connection ended within an answer's head"),
                more => read += more,
            }
            let end = self.buffer[..read].windows(4).position(|part| part == b"\r\n\r\n");
            if let Some(end) = end {
                break end + 4;
            }
        };
        let head = String::from_utf8_lossy(&self.buffer[..body]).into_owned();
        let length = head.to_ascii_lowercase().contains(&format!("content-length: {bytes}\r\n"));
        ensure!(head.starts_with("HTTP/1.1 200 ") && length, "GET /{bytes}: {head}");
        let mut got = read - body;
        while got < bytes {
            match self.stream.read(&mut self.buffer).context("read an answer's body")? {
                0 => bail!("the answer ended after {got} of {bytes} bytes"),
                more => got += more,
            }
        }
        ensure!(got == bytes, "{got} bytes came instead of {bytes}");
        Ok(())
    }
}
