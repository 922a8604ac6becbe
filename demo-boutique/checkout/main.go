// Checkout turns a cart into an order: it asks all that have a part in it, one after the other.
package main

import (
	"log"
	"time"

	"google.golang.org/grpc"

	chassis "weir.dev/boutique/chassis/go"
	eventsv1 "weir.dev/boutique/proto/boutique/events/v1"
	boutiquev1 "weir.dev/boutique/proto/boutique/v1"
)

func main() {
	env := &chassis.Env{}
	timeout := time.Duration(env.Int("GRPC_TIMEOUT_MS", 10_000)) * time.Millisecond
	if err := env.Err(); err != nil {
		log.Fatal(err)
	}
	dial := func(variable, fallback string) *grpc.ClientConn {
		conn, err := chassis.Dial(env.Text(variable, fallback), timeout)
		if err != nil {
			log.Fatalf("%s: %v", variable, err)
		}
		return conn
	}
	service := &checkout{
		cart:     boutiquev1.NewCartClient(dial("CART_SERVICE_ADDR", "127.0.0.1:7070")),
		catalog:  boutiquev1.NewCatalogClient(dial("PRODUCT_CATALOG_SERVICE_ADDR", "127.0.0.1:3550")),
		currency: boutiquev1.NewCurrencyClient(dial("CURRENCY_SERVICE_ADDR", "127.0.0.1:7000")),
		shipping: boutiquev1.NewShippingClient(dial("SHIPPING_SERVICE_ADDR", "127.0.0.1:50052")),
		payment:  boutiquev1.NewPaymentClient(dial("PAYMENT_SERVICE_ADDR", "127.0.0.1:50051")),
		orderlog: eventsv1.NewOrderLogClient(dial("ORDERLOG_SERVICE_ADDR", "127.0.0.1:7300")),
		once:     newOnce(ordersMax),
	}
	chassis.Main("checkout", 5050, 9505, service.register)
}

func (c *checkout) register(server *grpc.Server) {
	boutiquev1.RegisterCheckoutServer(server, c)

	// Online Boutique's name for the same API: its services can call this one.
	alias := boutiquev1.Checkout_ServiceDesc
	alias.ServiceName = "hipstershop.CheckoutService"
	server.RegisterService(&alias, c)
}
