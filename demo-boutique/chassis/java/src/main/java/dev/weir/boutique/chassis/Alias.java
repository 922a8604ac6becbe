package dev.weir.boutique.chassis;

import io.grpc.BindableService;
import io.grpc.MethodDescriptor;
import io.grpc.ServerServiceDefinition;

/** The same service under another name, for callers that know it by that one. */
public final class Alias {
  private Alias() {}

  public static ServerServiceDefinition of(BindableService service, String name) {
    var builder = ServerServiceDefinition.builder(name);
    service.bindService().getMethods().forEach(method -> add(builder, method, name));
    return builder.build();
  }

  private static <Q, A> void add(
      ServerServiceDefinition.Builder builder, io.grpc.ServerMethodDefinition<Q, A> method, String name) {
    MethodDescriptor<Q, A> known = method.getMethodDescriptor();
    String path = MethodDescriptor.generateFullMethodName(name, known.getBareMethodName());
    builder.addMethod(known.toBuilder().setFullMethodName(path).build(), method.getServerCallHandler());
  }
}
