package dev.weir.boutique.chassis;

import boutique.v1.ChaosOuterClass.Knobs;
import io.grpc.Status;
import java.util.Arrays;
import java.util.Map;

/** Settings from the environment, each checked where it is read. */
public final class Env {
  private final Map<String, String> variables;

  public Env(Map<String, String> variables) {
    this.variables = variables;
  }

  /** The number in a variable, or the fallback where it is unset or empty. */
  public int integer(String name, int fallback) {
    String text = variables.getOrDefault(name, "");
    if (text.isEmpty()) {
      return fallback;
    }
    if (!text.matches("\\d{1,9}")) {
      throw refuse(name, text, "a number from 0");
    }
    return Integer.parseInt(text);
  }

  public String text(String name, String fallback) {
    String text = variables.getOrDefault(name, "");
    return text.isEmpty() ? fallback : text;
  }

  /** The faults to start with. */
  Knobs knobs() {
    return Knobs.newBuilder()
        .setLatencyMs(integer("LATENCY_MS", 0))
        .setErrorPct(integer("ERROR_PCT", 0))
        .setCode(code("ERROR_CODE"))
        .setSlots(integer("SLOTS", 0))
        .setServiceMs(integer("SERVICE_MS", 0))
        .build();
  }

  /** A gRPC status, by name (UNAVAILABLE) or by number (14). */
  private int code(String name) {
    String text = text(name, "OK");
    return Arrays.stream(Status.Code.values())
        .filter(code -> code.name().equals(text) || String.valueOf(code.value()).equals(text))
        .findFirst()
        .orElseThrow(() -> refuse(name, text, "a gRPC status like UNAVAILABLE or 14"))
        .value();
  }

  private static IllegalArgumentException refuse(String name, String text, String expected) {
    return new IllegalArgumentException(name + "=\"" + text + "\": expected " + expected);
  }
}
