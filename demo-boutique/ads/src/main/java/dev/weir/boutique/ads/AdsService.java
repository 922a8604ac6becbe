package dev.weir.boutique.ads;

import boutique.v1.AdsGrpc;
import boutique.v1.AdsOuterClass.Ad;
import boutique.v1.AdsOuterClass.GetAdsRequest;
import boutique.v1.AdsOuterClass.GetAdsResponse;
import io.grpc.stub.StreamObserver;
import java.util.ArrayList;
import java.util.Collection;
import java.util.Collections;
import java.util.List;
import java.util.Map;
import java.util.random.RandomGenerator;

/** boutique.v1.Ads: one ad a call, as the page has one place for it. */
final class AdsService extends AdsGrpc.AdsImplBase {
  /** By category of the catalog; what they lead to are its products. */
  private static final Map<String, List<Ad>> BY_CATEGORY = Map.of(
      "kitchen", List.of(ad("enamel-mug", "Mugs that survive a capsize. Every second one at half price.")),
      "outdoor", List.of(
          ad("brass-compass", "Lost? Twenty per cent off all compasses until you find us."),
          ad("canoe-paddle", "Paddles, carved while you wait. Bring time.")),
      "home", List.of(ad("wool-blanket", "Buy a blanket, and the evening is on us.")),
      "clothing", List.of(ad("rain-jacket", "A jacket for rain you have not had yet.")));

  private final RandomGenerator dice;

  AdsService(RandomGenerator dice) {
    this.dice = dice;
  }

  @Override
  public void getAds(GetAdsRequest request, StreamObserver<GetAdsResponse> answer) {
    List<Ad> fitting = fitting(request.getContextKeysList());
    answer.onNext(GetAdsResponse.newBuilder().addAds(fitting.get(dice.nextInt(fitting.size()))).build());
    answer.onCompleted();
  }

  private static List<Ad> fitting(Collection<String> categories) {
    List<Ad> found = new ArrayList<>();
    BY_CATEGORY.forEach((category, ads) -> found.addAll(categories.contains(category) ? ads : Collections.emptyList()));
    if (found.isEmpty()) {
      BY_CATEGORY.values().forEach(found::addAll);
    }
    return found;
  }

  private static Ad ad(String product, String text) {
    return Ad.newBuilder().setRedirectUrl("/product/" + product).setText(text).build();
  }
}
