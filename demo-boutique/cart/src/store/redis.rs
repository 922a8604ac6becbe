//! Carts in Redis: one hash per user, one multiplexed connection.
//!
//! ```text
//!          connected                     connection lost, or an answer that took too long
//!   Down ─────────────▶ Up ─────────────────────────────────▶ Down { retry_at }
//!    │  ▲
//!    └──┘ connect failed: retry_at moves away, up to RETRY_PAUSE_MAX; until then calls fail at once
//! ```
//!
//! Every wait is bounded: the connect, the answer, and the number of calls that wait. A connection whose
//! answer is late is dropped rather than trusted: after a partition TCP may sleep longer than the partition took.

use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Cmd, FromRedisValue, RedisConnectionInfo};
use tokio::net::TcpStream;
use tokio::sync::{Mutex, Semaphore};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

use super::{Id, Lines, PRODUCTS_PER_CART_MAX, QUANTITY_MAX, Quantity, StoreError};

/// Calls that may wait for Redis at once; more are refused rather than queued.
const CALLS_MAX: usize = 512;
const RETRY_PAUSE_MIN: Duration = Duration::from_millis(50);
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(1);
/// A cart nobody touches for a day is abandoned.
const CART_TTL_SECONDS: u32 = 24 * 60 * 60;

/// One round trip, and atomic: check the limits, add, keep the cart alive. Answers 0 when the cart is full.
const ADD: &str = "\
local have = tonumber(redis.call('HGET', KEYS[1], ARGV[1]) or 0)
if have == 0 and redis.call('HLEN', KEYS[1]) >= tonumber(ARGV[3]) then return 0 end
if have + tonumber(ARGV[2]) > tonumber(ARGV[4]) then return 0 end
redis.call('HINCRBY', KEYS[1], ARGV[1], ARGV[2])
redis.call('EXPIRE', KEYS[1], ARGV[5])
return 1";

#[derive(Debug)]
pub struct RedisCarts {
    addr: String,
    /// For a connect, and again for an answer.
    timeout: Duration,
    calls: Semaphore,
    link: Mutex<Link>,
}

#[derive(Debug)]
enum Link {
    Up(Live),
    Down { failures: u32, retry_at: Instant },
}

#[derive(Debug)]
struct Live {
    connection: MultiplexedConnection,
    /// Reads and writes the socket; finished means that the connection is lost.
    driver: JoinHandle<()>,
    /// Tells this connection from its successors: a late failure must not take down a newer one.
    born: Instant,
}

/// Whether a command may be sent again when its answer was lost.
#[derive(Clone, Copy)]
enum Repeat {
    Safe,
    Unsafe,
}

impl RedisCarts {
    /// Connects with the first call, not here: a cart must start before its Redis does.
    pub fn new(addr: String, timeout: Duration) -> Self {
        Self {
            addr,
            timeout,
            calls: Semaphore::new(CALLS_MAX),
            link: Mutex::new(Link::Down {
                failures: 0,
                retry_at: Instant::now(),
            }),
        }
    }

    pub async fn add(&self, user: &Id, product: &Id, quantity: Quantity) -> Result<(), StoreError> {
        let mut eval = redis::cmd("EVAL");
        eval.arg(ADD).arg(1).arg(key(user)).arg(product.as_str());
        eval.arg(quantity.0).arg(PRODUCTS_PER_CART_MAX);
        eval.arg(QUANTITY_MAX).arg(CART_TTL_SECONDS);
        match self.call(&eval, Repeat::Unsafe).await? {
            1 => Ok(()),
            _ => Err(StoreError::CartFull),
        }
    }

    pub async fn lines(&self, user: &Id) -> Result<Lines, StoreError> {
        let mut hgetall = redis::cmd("HGETALL");
        hgetall.arg(key(user));
        self.call(&hgetall, Repeat::Safe).await
    }

    pub async fn empty(&self, user: &Id) -> Result<(), StoreError> {
        let mut del = redis::cmd("DEL");
        del.arg(key(user));
        self.call(&del, Repeat::Safe).await
    }

    async fn call<Answer: FromRedisValue>(
        &self,
        command: &Cmd,
        repeat: Repeat,
    ) -> Result<Answer, StoreError> {
        let _permit = self
            .calls
            .try_acquire()
            .map_err(|_| StoreError::Busy(format!("{CALLS_MAX} calls already wait for redis")))?;
        match (self.attempt(command).await, repeat) {
            (Err(StoreError::Unreachable(_)), Repeat::Safe) => self.attempt(command).await,
            (answer, _) => answer,
        }
    }

    async fn attempt<Answer: FromRedisValue>(&self, command: &Cmd) -> Result<Answer, StoreError> {
        let (mut connection, born) = self.connection().await?;
        let answer = timeout(self.timeout, command.query_async(&mut connection)).await;
        match answer {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) if error.is_unrecoverable_error() || error.is_io_error() => {
                Err(self.lost(born, format!("connection lost: {error}")).await)
            }
            Ok(Err(error)) => Err(StoreError::Failed(format!("redis: {error}"))),
            Err(_) => Err(self
                .lost(born, format!("no answer in {:?}", self.timeout))
                .await),
        }
    }

    /// The live connection, or a new one. Callers wait here for one connect at most, never longer than `timeout`.
    async fn connection(&self) -> Result<(MultiplexedConnection, Instant), StoreError> {
        let mut link = self.link.lock().await;
        let failures = match &*link {
            Link::Up(live) if !live.driver.is_finished() => {
                return Ok((live.connection.clone(), live.born));
            }
            Link::Up(_) => 0,
            Link::Down { failures, retry_at } => {
                let pause = retry_at.saturating_duration_since(Instant::now());
                if !pause.is_zero() {
                    return Err(self.unreachable(format!("next try in {pause:?}")));
                }
                *failures
            }
        };
        match timeout(self.timeout, connect(&self.addr)).await {
            Ok(Ok(live)) => {
                eprintln!("cart: connected to redis at {}", self.addr);
                let answer = (live.connection.clone(), live.born);
                *link = Link::Up(live);
                Ok(answer)
            }
            failed => {
                let why = match failed {
                    Ok(Err(error)) => error,
                    _ => format!("no connection in {:?}", self.timeout),
                };
                *link = Link::Down {
                    failures: failures.saturating_add(1),
                    retry_at: Instant::now() + retry_pause(failures),
                };
                Err(self.unreachable(why))
            }
        }
    }

    /// Drops the connection that failed, unless another call already did.
    async fn lost(&self, born: Instant, why: String) -> StoreError {
        let mut link = self.link.lock().await;
        if matches!(&*link, Link::Up(live) if live.born == born) {
            eprintln!("cart: redis at {}: {why}", self.addr);
            *link = Link::Down {
                failures: 0,
                retry_at: Instant::now(),
            };
        }
        self.unreachable(why)
    }

    fn unreachable(&self, why: String) -> StoreError {
        StoreError::Unreachable(format!("redis at {} is unreachable: {why}", self.addr))
    }
}

fn key(user: &Id) -> String {
    format!("cart:{}", user.as_str())
}

async fn connect(addr: &str) -> Result<Live, String> {
    let stream = TcpStream::connect(addr)
        .await
        .map_err(|error| error.to_string())?;
    stream
        .set_nodelay(true)
        .map_err(|error| error.to_string())?;
    // Our own timeout covers the whole call; two clocks for one wait would only disagree.
    let config = AsyncConnectionConfig::new().set_response_timeout(None);
    let info = RedisConnectionInfo::default();
    let (connection, driver) = MultiplexedConnection::new_with_config(&info, stream, config)
        .await
        .map_err(|error| error.to_string())?;
    Ok(Live {
        connection,
        driver: tokio::spawn(driver),
        born: Instant::now(),
    })
}

/// Doubles with every failure, jittered so that replicas of the cart do not come back in step.
fn retry_pause(failures: u32) -> Duration {
    let doubled = RETRY_PAUSE_MIN.saturating_mul(1u32 << failures.min(10));
    doubled
        .min(RETRY_PAUSE_MAX)
        .mul_f64(0.5 + fastrand::f64() / 2.0)
}

/// The driver must not outlive the link: it would keep the socket of a lost connection.
impl Drop for Live {
    fn drop(&mut self) {
        self.driver.abort();
    }
}
