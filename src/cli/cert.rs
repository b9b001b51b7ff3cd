//! `starling cert`: authorities and certificates for real clusters.

use std::path::PathBuf;

use super::failure::{Done, Failure};
use super::output;
use crate::transport::authority::{Authority, CredentialPaths};
use crate::transport::identity::Role;

/// Make an authority and issue certificates
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Make one authority for a cluster, keep its key where the nodes are not, and hand each node and client the three files \
that were issued to it. On one machine none of this is needed: a development authority is made on first use.

Examples:
  starling cert authority --dir ./authority --name prod
  starling cert node --authority ./authority --cluster prod --name n1 --out ./certs
  starling cert client --authority ./authority --name app --role writer --out ./certs
  starling node --data ./n1 --cluster prod --name n1 --ca certs/ca.pem --cert certs/n1.pem --key certs/n1.key")]
pub(crate) struct CertArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Make a new authority
    Authority {
        /// Where to put it; a new directory
        #[arg(long, value_name = "DIR")]
        dir: PathBuf,
        /// Its name, for people
        #[arg(long, default_value = "starling")]
        name: String,
    },
    /// Issue a certificate to a node
    Node {
        /// The directory of the authority
        #[arg(long, value_name = "DIR")]
        authority: PathBuf,
        /// The node's cluster, as in `starling node --cluster`
        #[arg(long, default_value = crate::server::config::CLUSTER_DEFAULT)]
        cluster: String,
        /// The node's name, as in `starling node --name`
        #[arg(long)]
        name: String,
        /// Where to put ca.pem, NAME.pem and NAME.key
        #[arg(long, value_name = "DIR", default_value = ".")]
        out: PathBuf,
        /// For how many days it is valid [default: 730]
        #[arg(long, value_parser = clap::value_parser!(i64).range(1..=36_500))]
        days: Option<i64>,
    },
    /// Issue a certificate to a client
    Client {
        /// The directory of the authority
        #[arg(long, value_name = "DIR")]
        authority: PathBuf,
        /// The client's name
        #[arg(long)]
        name: String,
        /// What it may do: reader, writer or admin
        #[arg(long, default_value = "writer", value_parser = parse_role)]
        role: Role,
        /// Where to put ca.pem, NAME.pem and NAME.key
        #[arg(long, value_name = "DIR", default_value = ".")]
        out: PathBuf,
        /// For how many days it is valid [default: 730]
        #[arg(long, value_parser = clap::value_parser!(i64).range(1..=36_500))]
        days: Option<i64>,
    },
}

fn parse_role(text: &str) -> Result<Role, String> {
    text.parse().map_err(|error: crate::transport::identity::IdentityError| error.to_string())
}

impl CertArgs {
    /// Runs it.
    pub(crate) fn run(self) -> Done {
        let load = |dir: &PathBuf, days: Option<i64>| -> Result<Authority, Failure> {
            let authority = Authority::load(dir).map_err(Failure::failed)?;
            Ok(match days {
                Some(days) => authority.issuing_for_days(days),
                None => authority,
            })
        };
        match self.what {
            What::Authority { dir, name } => {
                let authority = Authority::create(&name).map_err(Failure::failed)?;
                authority.save(&dir).map_err(Failure::failed)?;
                output::line(&format!(
                    "the authority {name} is in {}; keep it away from the nodes",
                    dir.display()
                ));
            }
            What::Node { authority, cluster, name, out, days } => {
                let issued = load(&authority, days)?.issue_node(&cluster, &name).map_err(Failure::failed)?;
                told(&issued.save(&out, &name).map_err(Failure::failed)?);
            }
            What::Client { authority, name, role, out, days } => {
                let issued = load(&authority, days)?.issue_client(&name, role).map_err(Failure::failed)?;
                told(&issued.save(&out, &name).map_err(Failure::failed)?);
            }
        }
        Ok(())
    }
}

fn told(paths: &CredentialPaths) {
    output::line(&format!(
        "--ca {} --cert {} --key {}",
        paths.ca.display(),
        paths.certificate.display(),
        paths.key.display()
    ));
}
