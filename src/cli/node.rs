//! `starling node`: one node, in the foreground.

use std::io::{IsTerminal, Read};
use std::path::PathBuf;

use futures_lite::future::block_on;
use tracing_subscriber::EnvFilter;

use super::failure::{Done, Failure};
use super::recovery;
use crate::server::config::{LogConfig, LogFormat, LogSettings, ServerConfig, Settings};
use crate::server::{Launch, Recovery};
use crate::transport::authority::Authority;
use crate::transport::certificate::Credentials;
use crate::transport::identity::Identity;

/// Run one node
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Without --seed and --found a node founds a cluster of one. To found a cluster of several, start as many nodes as it is \
to have, each with the same --found and with the others as seeds. A node with seeds and without --found joins.

Every setting can stand in a file as well (--config), under the name of its flag; a flag wins over the file.

Examples:
  starling node --data ./n1
  starling node --data ./n1 --name n1 --listen 10.0.0.1:7400 --found 3 --seed 10.0.0.2:7400 --seed 10.0.0.3:7400 \\
      --cluster prod --ca ca.pem --cert n1.pem --key n1.key
  starling node --config /etc/starling/node.toml")]
pub(crate) struct NodeArgs {
    /// Settings in TOML
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where the data lives; one process at a time
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// The address to listen on; port 0 lets the system choose [default: 127.0.0.1:7400]
    #[arg(long, value_name = "HOST:PORT")]
    listen: Option<String>,
    /// The addresses that others are told, best first [default: the one listened on]
    #[arg(long, value_name = "HOST:PORT,..", value_delimiter = ',')]
    advertise: Vec<String>,
    /// Another node; repeatable
    #[arg(long = "seed", value_name = "HOST:PORT", value_delimiter = ',')]
    seeds: Vec<String>,
    /// Found a cluster of this many nodes, if there is none yet
    #[arg(long, value_name = "SIZE")]
    found: Option<u16>,
    /// What people call it; unique in the cluster [default: made from the address]
    #[arg(long)]
    name: Option<String>,
    /// What fails together with it: a rack, a room; counts at founding only [default: default]
    #[arg(long)]
    zone: Option<String>,
    /// Its share of the ring, relative to the others; counts at founding only [default: 1]
    #[arg(long)]
    weight: Option<u16>,
    /// Replicas of every key; counts at founding only [default: 3]
    #[arg(long, value_name = "N")]
    replicas: Option<u8>,
    /// The cluster's name in the certificates of its nodes [default: starling]
    #[arg(long, value_name = "NAME")]
    cluster: Option<String>,
    /// The authority that all nodes and clients trust (PEM) [default: this user's development authority]
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// The node's certificate (PEM)
    #[arg(long, value_name = "FILE")]
    cert: Option<PathBuf>,
    /// The node's private key (PEM)
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// Allow administrators to inject network faults; never in production
    #[arg(long)]
    faults: bool,
    /// If the data is lost, or cannot be trusted, come back as the same node and get it from the others. What is there is
    /// moved aside, not deleted. With sound data this does nothing
    #[arg(long)]
    recover: bool,
    /// After a loss, serve what is left of slots that no other node has a copy of
    #[arg(long)]
    accept_loss: bool,
    /// The form of the log, on standard error: text or json
    #[arg(long, value_name = "FORM", value_parser = parse_log_format)]
    log_format: Option<LogFormat>,
    /// What to log: a level, or directives such as info,starling::server=debug [default: info]
    #[arg(long = "log", value_name = "LEVEL")]
    log_level: Option<String>,
    /// End when standard input does: how a lab makes sure that no node outlives it
    #[arg(long, hide = true)]
    exit_with_stdin: bool,
}

fn parse_log_format(text: &str) -> Result<LogFormat, String> {
    match text {
        "text" => Ok(LogFormat::Text),
        "json" => Ok(LogFormat::Json),
        _ => Err("the form is text or json".to_owned()),
    }
}

impl NodeArgs {
    /// Runs it until it is told to stop.
    pub(crate) fn run(self) -> Done {
        let exit_with_stdin = self.exit_with_stdin;
        let config = self.settings().and_then(|settings| settings.resolve().map_err(Failure::failed))?;
        start_log(&config.log)?;
        let (seeds, name) = (config.node.seeds.clone(), config.node.name.clone());
        let launch = launch(config)?;
        let until = async move {
            if exit_with_stdin {
                stdin_ended().await;
            } else {
                std::future::pending().await
            }
        };
        block_on(recovery::run(launch, &name, &seeds, until))
    }

    fn settings(self) -> Result<Settings, Failure> {
        let some = |list: Vec<String>| if list.is_empty() { None } else { Some(list) };
        let flags = Settings {
            data: self.data,
            listen: self.listen,
            advertise: some(self.advertise),
            seeds: some(self.seeds),
            found: self.found,
            name: self.name,
            zone: self.zone,
            weight: self.weight,
            cluster: self.cluster,
            replicas: self.replicas,
            faults: self.faults.then_some(true),
            recover: self.recover.then_some(true),
            accept_loss: self.accept_loss.then_some(true),
            ca: self.ca,
            cert: self.cert,
            key: self.key,
            log: LogSettings { format: self.log_format, level: self.log_level },
            ..Settings::default()
        };
        match self.config {
            Some(path) => Ok(flags.or(Settings::load(&path).map_err(Failure::failed)?)),
            None => Ok(flags),
        }
    }
}

/// What the server needs of a configuration: credentials are loaded, or issued by the development authority.
fn launch(config: ServerConfig) -> Result<Launch, Failure> {
    let name = config.node.name.as_str();
    let credentials = match &config.credentials {
        Some(files) => {
            let credentials =
                Credentials::load(&files.ca, &files.certificate, &files.key).map_err(Failure::failed)?;
            check_identity(credentials.identity(), &config.cluster, name, &files.certificate)?;
            credentials
        }
        None => {
            let authority = Authority::load_or_create_development().map_err(Failure::failed)?;
            let issued = authority.issue_node(&config.cluster, name).map_err(Failure::failed)?;
            issued.credentials().map_err(Failure::failed)?
        }
    };
    Ok(Launch {
        node: config.node,
        listen: config.listen,
        data: config.data,
        disk: config.disk,
        credentials,
        faults: config.faults,
        recovery: if config.recover { Recovery::Wanted } else { Recovery::Off },
    })
}

/// A node whose certificate says something else would be refused by every peer, with the reason in *their* logs.
fn check_identity(identity: &Identity, cluster: &str, name: &str, file: &std::path::Path) -> Done {
    let fits = matches!(identity, Identity::Node { cluster: c, name: n } if c == cluster && n == name);
    if fits {
        return Ok(());
    }
    Err(Failure::Failed(format!(
        "the certificate {} is for {}, but this is node {name} of cluster {cluster}: \
         set --name and --cluster to match, or issue another one with `starling cert node`",
        file.display(),
        identity.uri(),
    )))
}

fn start_log(config: &LogConfig) -> Done {
    let filter = EnvFilter::try_new(&config.level).map_err(|error| {
        Failure::Usage(format!("--log {:?}: {error}; write a level, or target=level,..", config.level))
    })?;
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    let started = match config.format {
        LogFormat::Text => log.try_init(),
        LogFormat::Json => log.json().try_init(),
    };
    started.map_err(Failure::failed)
}

/// Ends when standard input does.
async fn stdin_ended() {
    let (ended, end) = async_std::channel::bounded::<()>(1);
    std::thread::spawn(move || {
        // Whatever comes is not for us; the end and an error mean the same.
        let mut sink = [0; 64];
        while matches!(std::io::stdin().read(&mut sink), Ok(1..)) {}
        drop(ended);
    });
    let _ = end.recv().await;
}
