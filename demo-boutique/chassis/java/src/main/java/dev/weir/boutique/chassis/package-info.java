/** What a Java service of the shop has besides its own job: knobs for faults, health, trace context, an orderly end. */
package dev.weir.boutique.chassis;
