//! What a visitor of the shop does: one request each, drawn by weight.
//!
//! In a path or a form `{product}`, `{query}` and `{visitor}` are replaced by what the request's dice say,
//! so that the same seed asks for the same things in the same order.

use bytes::Bytes;
use http_body_util::Full;
use hyper::Request;
use hyper::header::{CONTENT_TYPE, COOKIE, HOST};
use hyper::http::uri::PathAndQuery;
use hyper::http::{HeaderName, HeaderValue, Method};

use crate::bounds::Refused;
use crate::carts::Carts;

/// As in demo-boutique/catalog/products.json; `--products` names others.
const PRODUCTS: [&str; 6] = [
    "enamel-mug",
    "wicker-creel",
    "wool-blanket",
    "brass-compass",
    "storm-lantern",
    "canoe-paddle",
];
const QUERIES: [&str; 4] = ["wool", "lantern", "mug", "boots"];
/// Visitors with a cart each. Few enough that carts have something in them.
const VISITORS: usize = 100;
/// The checkout form as a visitor fills it in. Without an idempotency key: each order is one of its own.
const ORDER: &str = "email=load-{visitor}@example.org&street_address=1+Mill+Lane&city=Weir&state=&country=England\
    &zip_code=12345&card_number=4432801561520454&card_month=1&card_year=2039&card_cvv=672";

/// How much a request matters, for whoever cannot serve all. A mesh believes it of callers that have proven who they are: of those who
/// come from outside as little as they are.
const CRITICALITY: HeaderName = HeaderName::from_static("x-weir-criticality");

#[derive(Clone, Debug)]
pub struct Journey {
    pub name: String,
    /// Its share, relative to the others'.
    pub weight: u32,
    pub method: Method,
    pub path: String,
    /// The body of a POST, as a form.
    pub form: Option<String>,
    pub headers: Vec<(HeaderName, HeaderValue)>,
    pub(crate) errand: Errand,
}

/// What a journey does to its visitor's cart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Errand {
    Look,
    Fill,
    Order,
}

impl Journey {
    pub fn get(name: &str, path: &str) -> Self {
        Self {
            name: name.to_owned(),
            weight: 1,
            method: Method::GET,
            path: path.to_owned(),
            form: None,
            headers: Vec::new(),
            errand: Errand::Look,
        }
    }

    pub fn post(name: &str, path: &str, form: &str) -> Self {
        Self {
            method: Method::POST,
            form: Some(form.to_owned()),
            ..Self::get(name, path)
        }
    }

    pub fn weight(self, weight: u32) -> Self {
        Self { weight, ..self }
    }

    fn errand(self, errand: Errand) -> Self {
        Self { errand, ..self }
    }

    fn criticality(mut self, criticality: &'static str) -> Self {
        let criticality = HeaderValue::from_static(criticality);
        self.headers.push((CRITICALITY, criticality));
        self
    }
}

/// The journeys of a run, and what they ask for.
#[derive(Clone, Debug)]
pub struct Journeys {
    all: Vec<Journey>,
    products: Vec<String>,
}

impl Journeys {
    pub fn of(all: Vec<Journey>) -> Result<Self, Refused> {
        if all.iter().all(|journey| journey.weight == 0) {
            return Err(Refused::new("no journey has a weight"));
        }
        let count = u16::try_from(all.len());
        let count = count.map_err(|_| Refused::new("these are too many journeys to tell apart"))?;
        let journeys = Self {
            all,
            products: PRODUCTS.map(str::to_owned).to_vec(),
        };
        // What can be built once can be built with any dice: they only fill in plain words.
        for journey in 0..count {
            journeys.build(journey, 0, 0, &HeaderValue::from_static("localhost"))?;
        }
        Ok(journeys)
    }

    /// What visitors of the storefront do: browse 10, product 6, search 2, cart 2, checkout 1. To check out matters most, to look
    /// around least.
    /// Who checks out has something in the cart; while nobody has, who would puts something in instead, also with weights
    /// that name no cart.
    pub fn shop() -> Self {
        let all = vec![
            Journey::get("browse", "/")
                .weight(10)
                .criticality("sheddable"),
            Journey::get("product", "/product/{product}")
                .weight(6)
                .criticality("sheddable"),
            Journey::get("search", "/search?q={query}")
                .weight(2)
                .criticality("sheddable"),
            Journey::post("cart", "/cart", "product_id={product}&quantity=1")
                .weight(2)
                .errand(Errand::Fill)
                .criticality("default"),
            Journey::post("checkout", "/checkout", ORDER)
                .errand(Errand::Order)
                .criticality("critical"),
        ];
        Self::of(all).expect("they have weights")
    }

    /// Takes `browse=5,cart=1`; a journey that is not named does not happen.
    pub fn weighted(mut self, weights: &str) -> Result<Self, Refused> {
        for journey in &mut self.all {
            journey.weight = 0;
        }
        for part in weights.split(',') {
            let (name, weight) = part.split_once('=').unwrap_or((part, "1"));
            let weight = weight.trim().parse();
            let journey = self
                .all
                .iter_mut()
                .find(|journey| journey.name == name.trim());
            match (journey, weight) {
                (Some(journey), Ok(weight)) => journey.weight = weight,
                (None, _) => {
                    let known: Vec<_> = self
                        .all
                        .iter()
                        .map(|journey| journey.name.as_str())
                        .collect();
                    let known = known.join(", ");
                    return Err(Refused::new(format!(
                        "there is no journey {name:?}, only {known}"
                    )));
                }
                (_, Err(_)) => {
                    return Err(Refused::new(format!("{part:?} is no weight like browse=5")));
                }
            }
        }
        Self::of(self.all)
    }

    /// Product ids become parts of paths: plain ones only.
    pub fn products(mut self, products: Vec<String>) -> Result<Self, Refused> {
        let is_plain = |id: &String| {
            let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
            !id.is_empty() && id.bytes().all(is_plain)
        };
        if products.is_empty() || !products.iter().all(is_plain) {
            return Err(Refused::new(
                "a product id has letters, digits, - and _ only",
            ));
        }
        self.products = products;
        Ok(self)
    }

    pub(crate) fn weights(&self) -> Vec<u32> {
        self.all.iter().map(|journey| journey.weight).collect()
    }

    pub(crate) fn names(&self) -> Vec<String> {
        self.all
            .iter()
            .map(|journey| journey.name.clone())
            .collect()
    }

    pub(crate) fn errand(&self, journey: u16) -> Errand {
        self.all[usize::from(journey)].errand
    }

    /// By which a cart is filled.
    pub(crate) fn filling(&self) -> Option<u16> {
        let mut journeys = (0..).zip(&self.all);
        journeys
            .find(|(_, journey)| journey.errand == Errand::Fill)
            .map(|(index, _)| index)
    }

    /// Nobody, with all carts empty.
    pub(crate) fn carts() -> Carts {
        Carts::of(VISITORS)
    }

    /// Whom these dice mean.
    pub(crate) fn visitor(dice: u64) -> usize {
        split(dice).0
    }

    /// The request that these dice mean, of this visitor.
    pub(crate) fn request(
        &self,
        journey: u16,
        visitor: usize,
        dice: u64,
        host: &HeaderValue,
    ) -> Request<Full<Bytes>> {
        self.build(journey, visitor, dice, host)
            .expect("each journey was built once when it was made")
    }

    fn build(
        &self,
        journey: u16,
        visitor: usize,
        dice: u64,
        host: &HeaderValue,
    ) -> Result<Request<Full<Bytes>>, Refused> {
        let journey = &self.all[usize::from(journey)];
        let product = pick(&self.products, split(dice).1);
        let query = pick(&QUERIES, dice >> 48);
        let fill = |template: &str| {
            template
                .replace("{product}", product)
                .replace("{query}", query)
                .replace("{visitor}", &visitor.to_string())
        };
        let path: PathAndQuery = fill(&journey.path).parse().map_err(|_| {
            Refused::new(format!(
                "journey {}: {:?} is no path",
                journey.name, journey.path
            ))
        })?;
        let body = journey.form.as_deref().map(fill).unwrap_or_default();
        let mut request = Request::new(Full::from(body));
        *request.method_mut() = journey.method.clone();
        *request.uri_mut() = path.into();
        let headers = request.headers_mut();
        headers.insert(HOST, host.clone());
        let cookie = HeaderValue::try_from(format!("session=load-{visitor}"));
        headers.insert(COOKIE, cookie.expect("a word and a number"));
        if journey.form.is_some() {
            let form = HeaderValue::from_static("application/x-www-form-urlencoded");
            headers.insert(CONTENT_TYPE, form);
        }
        headers.extend(journey.headers.iter().cloned());
        Ok(request)
    }
}

/// A visitor, and more dice: how visitors and products meet must not repeat in step.
fn split(dice: u64) -> (usize, u64) {
    const COUNT: u64 = VISITORS as u64;
    let visitor = usize::try_from(dice % COUNT).expect("less than a count of visitors");
    (visitor, dice / COUNT)
}

fn pick<Item: AsRef<str>>(items: &[Item], dice: u64) -> &str {
    let count = u64::try_from(items.len()).expect("a list fits in memory");
    let index = usize::try_from(dice % count).expect("less than a length");
    items[index].as_ref()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST_VALUE: HeaderValue = HeaderValue::from_static("127.0.0.1:8080");

    #[test]
    fn the_same_dice_ask_for_the_same_thing() {
        let shop = Journeys::shop();
        let path = |dice| {
            let request = shop.request(1, Journeys::visitor(dice), dice, &HOST_VALUE);
            request.uri().to_string()
        };
        assert_eq!(path(1234), path(1234));
        assert!(path(1234).starts_with("/product/"));
        let different: std::collections::HashSet<_> = (0..10_000).step_by(37).map(path).collect();
        assert_eq!(different.len(), PRODUCTS.len(), "{different:?}");
    }

    #[test]
    fn putting_into_the_cart_is_a_form_of_a_visitor() {
        let shop = Journeys::shop();
        let request = shop.request(3, Journeys::visitor(42), 42, &HOST_VALUE);
        assert_eq!(
            (request.method(), request.uri().path()),
            (&Method::POST, "/cart")
        );
        assert_eq!(
            request.headers()[CONTENT_TYPE],
            "application/x-www-form-urlencoded"
        );
        assert_eq!(request.headers()[COOKIE], "session=load-42");
        assert_eq!(request.headers()[HOST], "127.0.0.1:8080");
    }

    #[test]
    fn each_journey_says_how_much_it_matters() {
        let shop = Journeys::shop();
        let said: Vec<String> = (0..5)
            .map(|journey| {
                let request = shop.request(journey, 0, 7, &HOST_VALUE);
                let said = request.headers()[CRITICALITY].to_str();
                said.expect("a word").to_owned()
            })
            .collect();
        assert_eq!(
            said,
            ["sheddable", "sheddable", "sheddable", "default", "critical"]
        );
    }

    #[test]
    fn weights_name_journeys_that_exist() {
        let shop = Journeys::shop().weighted("browse=2,cart=1").expect("valid");
        assert_eq!(shop.weights(), [2, 0, 0, 1, 0]);
        let said = Journeys::shop()
            .weighted("brouse=2")
            .expect_err("no such journey");
        assert!(said.to_string().contains("browse"), "{said}");
        Journeys::shop()
            .weighted("browse=0")
            .expect_err("nothing would happen");
        Journeys::shop()
            .weighted("browse=many")
            .expect_err("no number");
    }

    #[test]
    fn a_journey_to_no_path_is_refused_when_it_is_made() {
        for path in ["", "no slash", "/a b"] {
            Journeys::of(vec![Journey::get("lost", path)]).expect_err(path);
        }
    }

    #[test]
    fn a_product_id_cannot_be_a_path() {
        Journeys::shop()
            .products(vec!["../admin".to_owned()])
            .expect_err("no plain id");
        Journeys::shop()
            .products(Vec::new())
            .expect_err("nothing to ask for");
    }
}
