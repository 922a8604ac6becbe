//! `boutique.v1.Cart`, and the same code under the name that Online Boutique's callers use.

use std::sync::Arc;
use std::task::{Context, Poll};

use boutique_chassis::chaos::Chaos;
use boutique_chassis::server::log;
use tokio::sync::Semaphore;
use tonic::codegen::http;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::metadata::MetadataMap;
use tonic::server::NamedService;
use tonic::{Code, Request, Response, Status};
use tower::Service;

use crate::pb::cart_server::{Cart, SERVICE_NAME};
use crate::pb::{
    AddItemRequest, AddItemResponse, CartItem, EmptyCartRequest, EmptyCartResponse, GetCartRequest,
    GetCartResponse,
};
use crate::store::{Id, Quantity, Store, StoreError};

/// Calls at once over all connections. Far above the shop's need: it bounds memory, it does not shape load.
const CALLS_MAX: usize = 4096;

#[derive(Clone, Debug)]
pub struct CartService(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    store: Store,
    chaos: Chaos,
    calls: Semaphore,
}

impl CartService {
    pub fn new(store: Store, chaos: Chaos) -> Self {
        Self(Arc::new(Shared {
            store,
            chaos,
            calls: Semaphore::new(CALLS_MAX),
        }))
    }

    async fn call<Answer>(
        &self,
        metadata: &MetadataMap,
        work: impl AsyncFnOnce(&Store) -> Result<Answer, Status>,
    ) -> Result<Response<Answer>, Status> {
        let _permit = self.0.calls.try_acquire().map_err(|_| {
            Status::resource_exhausted(format!("{CALLS_MAX} calls are in progress"))
        })?;
        self.0.chaos.strike().await?;
        let answer = work(&self.0.store).await;
        if let Err(status) = &answer {
            log("cart", status, metadata);
        }
        answer.map(Response::new)
    }
}

#[tonic::async_trait]
impl Cart for CartService {
    async fn add_item(
        &self,
        request: Request<AddItemRequest>,
    ) -> Result<Response<AddItemResponse>, Status> {
        let (metadata, _, AddItemRequest { user_id, item }) = request.into_parts();
        self.call(&metadata, async |store| {
            let item = item.ok_or_else(|| Status::invalid_argument("item is missing"))?;
            let user = id("user_id", user_id)?;
            let product = id("product_id", item.product_id)?;
            let quantity = Quantity::parse(item.quantity).map_err(Status::invalid_argument)?;
            store.add(&user, &product, quantity).await?;
            Ok(AddItemResponse {})
        })
        .await
    }

    async fn get_cart(
        &self,
        request: Request<GetCartRequest>,
    ) -> Result<Response<GetCartResponse>, Status> {
        let (metadata, _, GetCartRequest { user_id }) = request.into_parts();
        self.call(&metadata, async |store| {
            let lines = store.lines(&id("user_id", user_id.clone())?).await?;
            let items = lines.into_iter().map(|(product_id, quantity)| CartItem {
                product_id,
                quantity,
            });
            Ok(GetCartResponse {
                user_id,
                items: items.collect(),
            })
        })
        .await
    }

    async fn empty_cart(
        &self,
        request: Request<EmptyCartRequest>,
    ) -> Result<Response<EmptyCartResponse>, Status> {
        let (metadata, _, EmptyCartRequest { user_id }) = request.into_parts();
        self.call(&metadata, async |store| {
            store.empty(&id("user_id", user_id)?).await?;
            Ok(EmptyCartResponse {})
        })
        .await
    }
}

fn id(what: &str, text: String) -> Result<Id, Status> {
    Id::parse(what, text).map_err(Status::invalid_argument)
}

impl From<StoreError> for Status {
    fn from(error: StoreError) -> Self {
        let code = match error {
            StoreError::CartFull => Code::FailedPrecondition,
            StoreError::Busy(_) => Code::ResourceExhausted,
            StoreError::Unreachable(_) => Code::Unavailable,
            StoreError::Failed(_) => Code::Internal,
        };
        Self::new(code, error.to_string())
    }
}

/// Serves `/hipstershop.CartService/X` as `/boutique.v1.Cart/X`.
#[derive(Clone, Debug)]
pub struct Alias<Inner>(pub Inner);

impl<Inner> NamedService for Alias<Inner> {
    const NAME: &'static str = "hipstershop.CartService";
}

impl<Inner, Body> Service<http::Request<Body>> for Alias<Inner>
where
    Inner: Service<http::Request<Body>>,
{
    type Response = Inner::Response;
    type Error = Inner::Error;
    type Future = Inner::Future;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, mut request: http::Request<Body>) -> Self::Future {
        let method = request.uri().path().rsplit('/').next().unwrap_or_default();
        let path = PathAndQuery::try_from(format!("/{SERVICE_NAME}/{method}"));
        *request.uri_mut() = path.expect("a path's last segment is a valid path").into();
        self.0.call(request)
    }
}
