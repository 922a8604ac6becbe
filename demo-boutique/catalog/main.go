// Catalog knows what the shop sells and what it costs.
package main

import (
	"google.golang.org/grpc"

	chassis "weir.dev/boutique/chassis/go"
	boutiquev1 "weir.dev/boutique/proto/boutique/v1"
)

func main() {
	chassis.Main("catalog", 3550, 9550, register)
}

func register(server *grpc.Server) {
	service := &catalog{products: stock()}
	boutiquev1.RegisterCatalogServer(server, service)
	boutiquev1.RegisterAdsServer(server, houseAds{products: service.products})
	boutiquev1.RegisterEchoServer(server, echo{})

	// Online Boutique's name for the same API: its services can call this one.
	alias := boutiquev1.Catalog_ServiceDesc
	alias.ServiceName = "hipstershop.ProductCatalogService"
	server.RegisterService(&alias, service)
}
