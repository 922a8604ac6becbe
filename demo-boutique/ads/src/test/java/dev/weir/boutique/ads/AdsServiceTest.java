package dev.weir.boutique.ads;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import boutique.v1.AdsOuterClass.GetAdsRequest;
import boutique.v1.AdsOuterClass.GetAdsResponse;
import io.grpc.stub.StreamObserver;
import java.util.HashSet;
import java.util.List;
import java.util.Random;
import java.util.Set;
import org.junit.jupiter.api.Test;

class AdsServiceTest {
  /** Where the ads of many calls lead. */
  private static Set<String> shown(String... categories) {
    AdsService ads = new AdsService(new Random(7));
    var request = GetAdsRequest.newBuilder().addAllContextKeys(List.of(categories)).build();
    Set<String> shown = new HashSet<>();
    for (int i = 0; i < 200; i++) {
      ads.getAds(request, new StreamObserver<>() {
        @Override
        public void onNext(GetAdsResponse answer) {
          assertEquals(1, answer.getAdsCount());
          assertTrue(answer.getAds(0).getText().length() > 10);
          shown.add(answer.getAds(0).getRedirectUrl());
        }

        @Override
        public void onError(Throwable why) {
          throw new AssertionError(why);
        }

        @Override
        public void onCompleted() {}
      });
    }
    return shown;
  }

  @Test
  void anAdGoesWithOneOfTheCategories() {
    assertEquals(Set.of("/product/enamel-mug"), shown("kitchen", "no such category"));
    assertEquals(
        Set.of("/product/enamel-mug", "/product/brass-compass", "/product/canoe-paddle"), shown("kitchen", "outdoor"));
  }

  @Test
  void whereNoneGoesAnyIsShown() {
    assertEquals(5, shown().size());
    assertEquals(shown(), shown("no such category"));
  }
}
