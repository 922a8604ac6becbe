// Shipping says what it costs to send things, sends them, and takes them back.
package main

import (
	"google.golang.org/grpc"

	chassis "weir.dev/boutique/chassis/go"
	boutiquev1 "weir.dev/boutique/proto/boutique/v1"
)

func main() {
	chassis.Main("shipping", 50052, 9552, register)
}

func register(server *grpc.Server) {
	service := &shipping{parcels: newParcels(ordersMax)}
	boutiquev1.RegisterShippingServer(server, service)

	// Online Boutique's name for the same API: its services can call this one.
	alias := boutiquev1.Shipping_ServiceDesc
	alias.ServiceName = "hipstershop.ShippingService"
	server.RegisterService(&alias, service)
}
