//! What the bench is asked for, and how much work that is.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, Subcommand};

use crate::shape::Shape;

/// What a hop through Weir costs, beside no proxy, a relay with nothing in it, and other proxies, in one run.
#[derive(Clone, Debug, Parser)]
#[command(name = "overhead")]
pub struct Arguments {
    #[command(subcommand)]
    pub command: Option<Command>,

    /// About two minutes: three short rounds of what matters most.
    #[arg(long, conflicts_with = "full")]
    pub quick: bool,

    /// About an hour and a half: longer rounds, more of them, more rates.
    #[arg(long)]
    pub full: bool,

    /// Only subjects, else only shapes, whose name contains this; what they are compared with stays.
    #[arg(long, value_name = "SUBSTRING")]
    pub only: Option<String>,

    /// Writes all figures of all rounds.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,

    /// Draws the picture.
    #[arg(long, value_name = "FILE")]
    pub svg: Option<PathBuf>,

    /// Proxies of yours to measure beside the others; see benches/README.md.
    #[arg(long, value_name = "FILE")]
    pub peers: Option<PathBuf>,

    /// Installs nothing: peers that are missing are left out.
    #[arg(long)]
    pub offline: bool,

    /// cargo says it to every bench.
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Counts instructions a request of the release binary under callgrind, and compares with what is committed.
    Instructions {
        /// Writes benches/instructions.json instead of comparing with it.
        #[arg(long)]
        write: bool,
        /// Keeps callgrind's profiles of the longer runs in this folder.
        #[arg(long, value_name = "FOLDER")]
        profile: Option<PathBuf>,
        #[arg(long, hide = true)]
        bench: bool,
    },
    /// Counts system calls a request of the release binary under strace.
    Syscalls {
        #[arg(long, hide = true)]
        bench: bool,
    },
}

/// How much is measured.
#[derive(Clone, Debug)]
pub struct Effort {
    pub rounds: usize,
    pub shapes: Vec<Shape>,
    pub rated: Vec<Shape>,
    pub rates: Vec<u32>,
    pub saturation: Duration,
    pub rate: Duration,
    pub warm_up: Duration,
    /// Also without policies, and how cost grows with the mesh.
    pub variants: bool,
}

impl Arguments {
    pub fn effort(&self) -> Effort {
        let milliseconds = Duration::from_millis;
        let all = Effort {
            rounds: 5,
            shapes: Shape::ALL.to_vec(),
            rated: vec![Shape::Http1, Shape::GrpcSmall, Shape::TcpRequest],
            rates: vec![1000],
            saturation: milliseconds(600),
            rate: milliseconds(2000),
            warm_up: milliseconds(250),
            variants: true,
        };
        match (self.quick, self.full) {
            (true, _) => Effort {
                rounds: 3,
                shapes: vec![Shape::Http1, Shape::GrpcSmall, Shape::TcpBulk],
                rated: vec![Shape::Http1, Shape::GrpcSmall],
                saturation: milliseconds(250),
                rate: milliseconds(700),
                warm_up: milliseconds(100),
                variants: false,
                ..all
            },
            (_, true) => Effort {
                rounds: 9,
                rates: vec![1000, 4000],
                saturation: milliseconds(1500),
                rate: milliseconds(4000),
                ..all
            },
            _ => all,
        }
    }
}
