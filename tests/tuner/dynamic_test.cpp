// Which few kernels serve a range of sizes, on made-up times.
#include "tuner/dynamic.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "tuner/search/strategy.h"

namespace kgen {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

// Kernels that do tiles of so many rows each, `speed` rows at a time; a tile has a fixed cost beside them.
struct Tiled {
  std::int64_t tile = 1;
  double fixed = 0, per_row = 0;
  double us(std::int64_t size) const {
    const auto tiles = static_cast<double>((size + tile - 1) / tile);
    return tiles * (fixed + per_row * static_cast<double>(tile));
  }
};

struct Made {
  std::vector<Tiled> kernels;
  SizeTimes times;

  Made(std::vector<Tiled> some, const std::vector<std::int64_t>& sizes) : kernels(std::move(some)) {
    times.sizes = sizes;
    for (const Tiled& kernel : kernels) {
      std::vector<double>& row = times.us.emplace_back();
      for (const std::int64_t size : sizes) row.push_back(kernel.us(size));
    }
  }
  Work work() const {
    return [this](std::size_t kernel, std::int64_t size) -> std::optional<double> {
      const std::int64_t tile = kernels[kernel].tile;
      return static_cast<double>((size + tile - 1) / tile);
    };
  }
  Cover cover(std::size_t most, double regret) const { return choose_cover(times, work(), most, regret); }
  double best(std::int64_t size) const {
    double us = kFailed;
    for (const Tiled& kernel : kernels) us = std::min(us, kernel.us(size));
    return us;
  }
};

TEST(Dynamic, SizesAreTheEndsAndEvenlySpreadOverOctaves) {
  EXPECT_THAT(sizes_to_measure(1, 16), ElementsAre(1, 2, 3, 4, 6, 8, 12, 16));
  EXPECT_THAT(sizes_to_measure(5, 7), ElementsAre(5, 6, 7));
  EXPECT_THAT(sizes_to_measure(64, 129), ElementsAre(64, 76, 96, 108, 128, 129));
  EXPECT_THAT(sizes_to_measure(77, 77), ElementsAre(77));
}

TEST(Dynamic, OneKernelThatIsAlwaysTheBestIsTheWholeCover) {
  const Made made({{16, 1, 1}, {16, 2, 1}, {32, 9, 1}}, sizes_to_measure(1, 256));
  const Cover cover = made.cover(12, 0.0);
  EXPECT_THAT(cover.kernels, ElementsAre(0));
  ASSERT_EQ(cover.spans.size(), 1u);
  EXPECT_EQ(cover.spans[0].first, 1);
  EXPECT_EQ(cover.spans[0].last, 256);
  EXPECT_EQ(cover.worst, 0);
  EXPECT_EQ(cover.predicted_worst, 0);
}

TEST(Dynamic, TheCoverHoldsTheRegretAtEverySizeOfTheRange) {
  const Made made({{1, 0.1, 2}, {8, 4, 1}, {64, 10, 0.6}, {256, 30, 0.5}, {128, 90, 0.5}}, sizes_to_measure(1, 2048));
  const Cover cover = made.cover(12, 0.03);
  EXPECT_LE(cover.worst, 0.03);
  std::int64_t next = 1;
  for (const Cover::Span& span : cover.spans) {
    EXPECT_EQ(span.first, next) << "no gap, no overlap";
    next = span.last + 1;
    for (std::int64_t size = span.first; size <= span.last; ++size)
      EXPECT_LE(made.kernels[span.kernel].us(size) / made.best(size) - 1, 0.12) << "at " << size;
  }
  EXPECT_EQ(next, 2049);
}

TEST(Dynamic, FewerKernelsCostMoreRegret) {
  const Made made({{1, 0.1, 2}, {8, 4, 1}, {64, 10, 0.6}, {256, 30, 0.5}}, sizes_to_measure(1, 2048));
  const Cover all = made.cover(12, 0.0), two = made.cover(2, 0.0), one = made.cover(1, 0.0);
  EXPECT_EQ(all.worst, 0);
  EXPECT_EQ(two.kernels.size(), 2u);
  EXPECT_EQ(one.kernels.size(), 1u);
  EXPECT_LT(all.worst, two.worst);
  EXPECT_LT(two.worst, one.worst);
  EXPECT_LT(two.mean, two.worst);
}

TEST(Dynamic, ATileThatASizeJustExceedsIsSeenBetweenMeasuredSizes) {
  // 65 to 128 rows cost the large tile the same; the small ones grow.
  const Made made({{64, 0, 1}, {16, 0, 1.2}}, {16, 32, 64, 128});
  const Cover cover = made.cover(12, 0.0);
  const auto serving = [&](std::int64_t size) {
    for (const Cover::Span& span : cover.spans)
      if (span.first <= size && size <= span.last) return span.kernel;
    return SIZE_MAX;
  };
  EXPECT_EQ(serving(64), 0u);
  EXPECT_EQ(serving(65), 1u) << "80 rows of small tiles (96 us) against 128 of large ones";
  EXPECT_EQ(serving(128), 0u);
}

TEST(Dynamic, AKernelIsNotChosenWhereItFailedOrIsNotLegal) {
  Made made({{1, 0, 1}, {1, 0, 2}}, {1, 2, 4, 8});
  made.times.us[0][3] = kFailed;
  const Cover cover = made.cover(12, 0.03);
  EXPECT_THAT(cover.kernels, ElementsAre(0, 1));
  EXPECT_EQ(cover.spans.back().kernel, 1u);
  const Cover none = choose_cover(made.times, [](std::size_t, std::int64_t) { return std::nullopt; }, 12, 0.03);
  std::vector<std::int64_t> served;
  for (const Cover::Span& span : none.spans)
    for (std::int64_t size = span.first; size <= span.last; ++size) served.push_back(size);
  EXPECT_EQ(served, made.times.sizes) << "only where it was measured";
}

TEST(Dynamic, WhatWasNotMeasuredEverywhereMayStillServe) {
  Made made({{1, 0, 1}, {1, 0, 2}}, {1, 2, 4, 8});
  made.times.us[0][1] = NAN;
  EXPECT_THAT(made.cover(12, 1.0).kernels, ElementsAre(1)) << "alone known at 2";
  EXPECT_THAT(made.cover(12, 0.5).kernels, ElementsAre(0)) << "expected to be the quicker one at 2 as well";
}

TEST(Dynamic, WithoutAnyTimeThereIsNoCover) {
  Made made({{1, 0, 1}}, {1, 2});
  made.times.us[0] = {kFailed, NAN};
  EXPECT_THAT(made.cover(12, 0.03).spans, IsEmpty());
}

TEST(Dynamic, WhereNoKernelsServeAllSizesThereIsNoCover) {
  Made made({{1, 0, 1}, {1, 0, 1}}, {1, 2});
  made.times.us = {{1, kFailed}, {kFailed, 1}};
  EXPECT_THAT(made.cover(1, 0.03).spans, IsEmpty());
  EXPECT_THAT(made.cover(2, 0.03).kernels, ElementsAre(0, 1));
}

}  // namespace
}  // namespace kgen
