//! A cluster under load, one fault after the other.
//!
//! ```text
//!              ┌ way 0 (a Relay) ┐
//!   Load ──────┤                 ├──── nginx ── … the cluster, each of its networks a Relay
//!    ▲         └ way 1 (a Relay) ┘
//!    └── Watch: how far behind is it?
//! ```

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use chat_load::{Load, LoadOptions, Pace, Roster, Senders, Shape, Verdict, setup};
use chat_store::{MySqlOptions, MySqlTls};
use nexus_net::{ClientPemFiles, ClientTls};
use nexus_testkit::{Cluster, ClusterFiles, ClusterOptions, Process, Relay};

use crate::Error;
use crate::absence::{self, Friends};
use crate::fault::{Fault, PROXIES, Part, SERVERS};
use crate::outcome::Outcome;
use crate::plan::Step;
use crate::watch::{self, Watch};

/// How long the chat may take to be whole after a fault before it is given up.
pub const WHOLE_WITHIN: Duration = Duration::from_secs(90);
/// For all users to log in.
const ENTER_WITHIN: Duration = Duration::from_secs(120);
/// For everything that is under way at the end to arrive.
const DRAIN_WITHIN: Duration = Duration::from_secs(90);
/// A client that waits for an answer and hears nothing connects anew. Above the proxies' `request_timeout`,
/// within which they answer whatever happens.
const SILENCE_MAX: Duration = Duration::from_secs(6);
/// So often each conversation gets a message: the grain of all times that are measured.
const MESSAGES_PER_S: f64 = 5.0;

/// What is hurt.
#[derive(Debug, Clone)]
pub struct TrialOptions {
    /// The folder of the chat's programs.
    pub binaries: PathBuf,
    /// Where data and logs are kept; by default a temporary folder.
    pub data_dir: Option<PathBuf>,
    /// Who talks.
    pub shape: Shape,
    /// Whether everything between clients and parts, and between the parts, is TLS.
    pub tls: bool,
}

/// A cluster under load. Dropping it ends all of it.
pub struct Trial {
    // In this order they are dropped: those that use before those they use.
    watch: Watch,
    load: Arc<Load>,
    friends: Friends,
    ways: [Relay; 2],
    cluster: Cluster,
}

impl Trial {
    /// Starts the cluster, makes its users and has them talk.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn start(options: &TrialOptions) -> Result<Self, Error> {
        let cluster = Cluster::start(ClusterOptions {
            proxies: PROXIES,
            servers: SERVERS,
            relayed: true,
            data_dir: options.data_dir.clone(),
            idle_timeout: Some(absence::IDLE_TIMEOUT),
            tls: options.tls,
            ..ClusterOptions::new(options.binaries.clone())
        })?;
        let ways = [
            Relay::start(cluster.address())?,
            Relay::start(cluster.address())?,
        ];
        let tls = cluster.files().map(client_tls).transpose()?;
        let store = store(&cluster);
        let friends = setup::seed_with(store.clone(), absence::SHAPE, 0)?;
        let friends = Friends::of(&friends, tls.clone()).ok_or(Error::Start("no two friends"))?;
        let roster = setup::seed_with(store, options.shape, 0)?;
        let connect = ways.each_ref().map(Relay::address).into();
        let load = talk(connect, tls, &roster, options.shape)?;
        let watch = Watch::start(Arc::clone(&load))?;
        if !watch.wait_whole(Duration::from_nanos(1), WHOLE_WITHIN) {
            return Err(Error::Start("not every conversation has begun"));
        }
        Ok(Self {
            watch,
            load,
            friends,
            ways,
            cluster,
        })
    }

    /// Does a fault to the cluster, undoes it, and waits until service is whole.
    ///
    /// # Errors
    /// A part that does not come back. That the chat does not is an [`Outcome`].
    pub fn suffer(&self, step: Step) -> Result<Outcome, Error> {
        thread::sleep(step.calm);
        let [way, other_way] = self.ways.each_ref().map(Relay::address);
        let together = match step.fault {
            Fault::VanishClients => Some(self.friends.enter(way, other_way)?),
            _ => None,
        };
        let reconnects = self.load.progress().reconnects;
        let sessions_ended = self.load.verdict().sessions_ended;
        self.watch.begin();
        self.inflict(step.fault);
        // From when it was complete: what was under way before may have had another fate.
        let begun = self.watch.now();
        let at = Instant::now();
        let absence = together.map(|friends| friends.part().watch(at, other_way));
        let absence = absence.transpose()?;
        thread::sleep(step.hold.saturating_sub(at.elapsed()));
        self.end(step.fault)?;
        let ended = self.watch.now();
        self.watch.wait_whole(ended, WHOLE_WITHIN);
        let samples = self.watch.samples();
        let during = watch::whole_after(&samples, begun);
        let verdict = so_far(&self.load);
        Ok(Outcome {
            fault: step.fault,
            held: ended.saturating_sub(begun),
            whole_during: during.filter(|after| begun + *after < ended),
            whole_after: watch::whole_after(&samples, ended),
            longest_wait: watch::longest_wait(&samples),
            reconnects: self.load.progress().reconnects - reconnects,
            sessions_ended: verdict.sessions_ended - sessions_ended,
            absence,
            fallen: self.fallen(),
            verdict,
        })
    }

    /// Parts that do not run.
    fn fallen(&self) -> Vec<String> {
        let parts = self.cluster.processes().into_iter();
        let fallen = parts.filter(|part| !part.is_running());
        fallen.map(|part| part.name().to_owned()).collect()
    }

    /// Ends the load and says what became of everything that was ever acknowledged.
    pub fn finish(self) -> Verdict {
        settle(&self.load)
    }

    fn inflict(&self, fault: Fault) {
        match fault {
            Fault::Kill(part) => {
                self.process(part).kill();
            }
            Fault::Pause(part) => self.process(part).pause(),
            Fault::Silence(link) => self.cluster.link(link).silence(),
            Fault::VanishClients => self.ways[0].silence(),
            // Of another chat than this.
            Fault::FillDisk => {}
        }
    }

    fn end(&self, fault: Fault) -> Result<(), Error> {
        match fault {
            Fault::Kill(part) => self.process(part).restart()?,
            Fault::Pause(part) => self.process(part).resume(),
            Fault::Silence(link) => self.cluster.link(link).open(),
            Fault::VanishClients => self.ways[0].open(),
            Fault::FillDisk => {}
        }
        Ok(())
    }

    fn process(&self, part: Part) -> &Process {
        match part {
            Part::Proxy(index) => self.cluster.proxy(index),
            Part::Server(index) => self.cluster.server(index),
            Part::Redis => self.cluster.redis(),
            Part::ZooKeeper => self.cluster.zookeeper().node(0),
            Part::Nginx => self.cluster.nginx(),
            Part::MariaDb => self.cluster.mariadb(),
        }
    }
}

/// How the cluster's store is reached.
fn store(cluster: &Cluster) -> MySqlOptions {
    let tls = cluster.files().map(|files| MySqlTls {
        ca: files.inner_ca.certificate(),
        identity: Some((files.node.certificate.clone(), files.node.key.clone())),
    });
    MySqlOptions {
        tls,
        ..MySqlOptions::new(cluster.mariadb().url())
    }
}

fn client_tls(files: &ClusterFiles) -> Result<ClientTls, nexus_net::Error> {
    let roots = ClientPemFiles {
        roots: files.ca.certificate(),
        ..ClientPemFiles::default()
    };
    ClientTls::from_pem(&roots, ClusterFiles::SERVER_NAME)
}

/// Has the users of a roster talk, at a rate that any machine bears: what is looked for is not speed.
pub(crate) fn talk(
    connect: Vec<SocketAddr>,
    tls: Option<ClientTls>,
    roster: &Roster,
    shape: Shape,
) -> Result<Arc<Load>, Error> {
    let pace = Pace::Open {
        pairs_per_s: shape.pairs as f64 * MESSAGES_PER_S,
        groups_per_s: shape.groups as f64 * MESSAGES_PER_S,
    };
    let options = LoadOptions {
        tls,
        senders: Senders::All,
        silence_max: SILENCE_MAX,
        heartbeat_interval: SILENCE_MAX,
        resumes: true,
        // Nobody asks: what arrives arrives by the chat's own doing.
        fetch_after: DRAIN_WITHIN * 2,
        ..LoadOptions::new(connect, pace)
    };
    let load = Load::start(options, roster)?;
    if !load.wait_entered(ENTER_WITHIN) {
        return Err(Error::Start("not every user could log in"));
    }
    load.begin(Duration::ZERO);
    Ok(Arc::new(load))
}

/// The verdict on a load that goes on. What is under way is not lost, and what is only missing shows in that
/// the chat is not whole.
fn so_far(load: &Load) -> Verdict {
    let mut verdict = load.verdict();
    (verdict.lost, verdict.gaps) = (0, 0);
    verdict
}

/// Ends a load, waits for what is under way, and gives the verdict on all of it.
pub(crate) fn settle(load: &Load) -> Verdict {
    load.end_sending();
    let started = Instant::now();
    let arrived = load.drain(DRAIN_WITHIN);
    let mut verdict = load.verdict();
    if !arrived {
        let progress = load.progress();
        verdict.examples.push(format!(
            "after {:.0} s {} sends have no answer and {} deliveries are owed",
            started.elapsed().as_secs_f64(),
            progress.unacknowledged,
            progress.owed
        ));
    }
    verdict
}
