//! A payment and a shipping with a ledger, which keep what they promise and are bad company otherwise:
//! they fail before they have done it, fail after they have done it, take their time, and what stands between them and
//! their caller refuses now and then what they have done.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::Server;
use tonic::{Request, Response, Status};

use crate::pb::shop::payment_server::{Payment, PaymentServer};
use crate::pb::shop::shipping_server::{Shipping, ShippingServer};
use crate::pb::shop::*;

/// A card with this number has no money.
pub(crate) const EMPTY_CARD: i32 = 13;
/// Nobody delivers to it.
pub(crate) const NOWHERE: &str = "Nowhere";

const FAIL_BEFORE_PERCENT: u32 = 12;
const FAIL_AFTER_PERCENT: u32 = 12;
const REFUSED_AFTER_PERCENT: u32 = 3;
const DELAY_MS_MAX: u64 = 25;

#[derive(Debug, Default)]
pub(crate) struct Ledger {
    pub(crate) charges: BTreeMap<String, u32>,
    pub(crate) refunds: BTreeMap<String, u32>,
    /// Orders whose parcel is on its way.
    pub(crate) parcels: BTreeMap<String, u32>,
    cancelled: BTreeSet<String>,
}

#[derive(Clone, Debug)]
pub(crate) struct Neighbours {
    pub(crate) ledger: Arc<Mutex<Ledger>>,
    random: Arc<Mutex<fastrand::Rng>>,
}

impl Neighbours {
    /// Serves both on one port of loopback, until the test ends.
    pub(crate) async fn start(seed: u64) -> (Self, SocketAddr) {
        let this = Self {
            ledger: Arc::default(),
            random: Arc::new(Mutex::new(fastrand::Rng::with_seed(seed))),
        };
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
        let listener = listener.expect("a free port");
        let addr = listener.local_addr().expect("bound");
        let served = Server::builder()
            .add_service(PaymentServer::new(this.clone()))
            .add_service(ShippingServer::new(this.clone()))
            .serve_with_incoming(TcpListenerStream::new(listener));
        tokio::spawn(served);
        (this, addr)
    }

    async fn serve<Answer>(
        &self,
        work: impl FnOnce(&mut Ledger) -> Result<Answer, Status>,
    ) -> Result<Response<Answer>, Status> {
        let (delay_ms, luck) = {
            let mut random = self.random.lock().unwrap_or_else(PoisonError::into_inner);
            (random.u64(0..DELAY_MS_MAX), random.u32(0..100))
        };
        tokio::time::sleep(Duration::from_millis(delay_ms)).await;
        if luck < FAIL_BEFORE_PERCENT {
            return Err(Status::unavailable("before it was done"));
        }
        let answer = work(&mut self.ledger.lock().unwrap_or_else(PoisonError::into_inner));
        if luck < FAIL_BEFORE_PERCENT + FAIL_AFTER_PERCENT {
            return Err(Status::unavailable("after it was done"));
        }
        if luck < FAIL_BEFORE_PERCENT + FAIL_AFTER_PERCENT + REFUSED_AFTER_PERCENT {
            return Err(Status::failed_precondition("by somebody else"));
        }
        answer.map(Response::new)
    }
}

#[tonic::async_trait]
impl Payment for Neighbours {
    async fn charge(&self, _: Request<ChargeRequest>) -> Result<Response<ChargeResponse>, Status> {
        Err(Status::unimplemented("not safe to repeat"))
    }

    async fn authorize(
        &self,
        request: Request<AuthorizeRequest>,
    ) -> Result<Response<AuthorizeResponse>, Status> {
        let AuthorizeRequest {
            key, credit_card, ..
        } = request.into_inner();
        self.serve(|ledger| {
            let card = credit_card.ok_or_else(|| Status::invalid_argument("no card"))?;
            if card.credit_card_cvv == EMPTY_CARD || ledger.refunds.contains_key(&key) {
                return Err(Status::failed_precondition("declined"));
            }
            ledger.charges.entry(key.clone()).or_insert(1);
            Ok(AuthorizeResponse {
                transaction_id: key,
            })
        })
        .await
    }

    async fn refund(
        &self,
        request: Request<RefundRequest>,
    ) -> Result<Response<RefundResponse>, Status> {
        let key = request.into_inner().key;
        self.serve(|ledger| {
            // Of what was never charged it gives nothing back, and forbids the charge.
            let charged = ledger.charges.get(&key).copied().unwrap_or_default();
            ledger.refunds.entry(key.clone()).or_insert(charged);
            Ok(RefundResponse {
                transaction_id: key,
            })
        })
        .await
    }

    async fn count_charges(
        &self,
        _: Request<CountChargesRequest>,
    ) -> Result<Response<CountChargesResponse>, Status> {
        Err(Status::unimplemented("the test looks into the ledger"))
    }
}

#[tonic::async_trait]
impl Shipping for Neighbours {
    async fn get_quote(
        &self,
        _: Request<GetQuoteRequest>,
    ) -> Result<Response<GetQuoteResponse>, Status> {
        Err(Status::unimplemented("nobody asks"))
    }

    async fn ship_order(
        &self,
        _: Request<ShipOrderRequest>,
    ) -> Result<Response<ShipOrderResponse>, Status> {
        Err(Status::unimplemented("not safe to repeat"))
    }

    async fn ship(&self, request: Request<ShipRequest>) -> Result<Response<ShipResponse>, Status> {
        let ShipRequest {
            order_id, address, ..
        } = request.into_inner();
        self.serve(|ledger| {
            let address = address.ok_or_else(|| Status::invalid_argument("no address"))?;
            if address.country == NOWHERE || ledger.cancelled.contains(&order_id) {
                return Err(Status::failed_precondition("not shipped"));
            }
            ledger.parcels.entry(order_id.clone()).or_insert(1);
            Ok(ShipResponse {
                tracking_id: order_id,
            })
        })
        .await
    }

    async fn cancel(
        &self,
        request: Request<CancelRequest>,
    ) -> Result<Response<CancelResponse>, Status> {
        let order_id = request.into_inner().order_id;
        self.serve(|ledger| {
            ledger.parcels.remove(&order_id);
            ledger.cancelled.insert(order_id.clone());
            Ok(CancelResponse {
                tracking_id: order_id,
            })
        })
        .await
    }
}
