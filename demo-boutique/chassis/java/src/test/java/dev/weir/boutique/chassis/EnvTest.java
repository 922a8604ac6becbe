package dev.weir.boutique.chassis;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;

import java.util.Map;
import org.junit.jupiter.api.Test;

class EnvTest {
  @Test
  void anErrorCodeIsANameOrANumber() {
    Map.of("", 0, "14", 14, "RESOURCE_EXHAUSTED", 8).forEach((text, code) ->
        assertEquals(code, new Env(Map.of("ERROR_CODE", text)).knobs().getCode(), text));
  }

  @Test
  void aVariableThatMakesNoSenseIsNamed() {
    for (Map<String, String> variables : new Map[] {Map.of("LATENCY_MS", "soon"), Map.of("LATENCY_MS", "-1")}) {
      var refusal = assertThrows(IllegalArgumentException.class, () -> new Env(variables).knobs());
      String text = variables.get("LATENCY_MS");
      assertEquals("LATENCY_MS=\"" + text + "\": expected a number from 0", refusal.getMessage());
    }
    assertThrows(IllegalArgumentException.class, () -> new Env(Map.of("ERROR_CODE", "OOPS")).knobs());
  }
}
