// Bank conflicts of the AMD tile loop, counted from the addresses that its lanes use.
//
// LDS has 32 banks of 4 bytes. An access of 16 bytes is done for 8 consecutive lanes at a time, one of 8 bytes for 16,
// a shorter one for 32; a turn takes as many clocks as the fullest bank has different words. What is counted is clocks
// by turns: 1 is free of conflicts.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <set>
#include <string>
#include <vector>

#include "templates/mma/mfma.h"
#include "templates/tile.h"
#include "templates/tile_window.h"

namespace kgen {
namespace {

struct Count {
  int clocks = 0, turns = 0;
  double factor() const { return double(clocks) / turns; }
  void add(const std::vector<int>& addresses, int bytes) {
    const std::size_t lanes = bytes == 16 ? 8 : bytes == 8 ? 16 : 32;
    for (std::size_t first = 0; first < addresses.size(); first += lanes) {
      std::array<std::set<int>, 32> words;
      for (std::size_t lane = first; lane < std::min(first + lanes, addresses.size()); ++lane)
        for (int word = addresses[lane] / 4; word <= (addresses[lane] + bytes - 1) / 4; ++word)
          words[std::size_t(word % 32)].insert(word);
      std::size_t most = 0;
      for (const auto& bank : words) most = std::max(most, bank.size());
      clocks += int(most);
      ++turns;
    }
  }
};

template <class Loader>
void count_writes(const auto& source, int threads, int wave, Count& count) {
  for (int i = 0; i < Loader::kCount; ++i)
    for (int e = 0; e < Loader::kRunsOfPiece; ++e)
      for (int first = 0; first < threads; first += wave) {
        std::vector<int> addresses;
        for (int lane = 0; lane < wave; ++lane) {
          const Loader loader(source, first + lane);
          if (loader.exists(i)) addresses.push_back(loader.place(i, e));
        }
        if (!addresses.empty()) count.add(addresses, Loader::kRunBytes);
      }
}

template <Arch kArch, int kM, int kTileM, int kTileN, int kTileK, int kWavesM, int kWavesN, bool kKn>
struct Tile {
  using Unit = Mma<kArch, f16, float, kM, kTileK>;
  using Shape = TileShape<Unit, kTileM, kTileN, kTileK, kWavesM, kWavesN, 1, false, false, false>;
  using SourceA = MatrixSource<f16, true>;
  using SourceB = MatrixSource<f16, !kKn>;
  static constexpr int kThreads = Shape::kThreads, kLd = 4096;

  static Count reads() {
    const SourceA source(nullptr, kLd, kLd, kTileM, kTileK, 8);
    Count count;
    for (int wave = 0; wave < Shape::kPlaces; ++wave) {
      std::vector<WaveTile<Shape>> lanes;
      for (int lane = 0; lane < Unit::kLanes; ++lane) lanes.emplace_back(wave, lane, source, source);
      const auto read = [&](const auto& place) {
        std::vector<int> addresses;
        for (const auto& lane : lanes) addresses.push_back(place(lane));
        count.add(addresses, sizeof(lanes[0].a[0][0]) / Unit::kChunksA);
      };
      for (int step = 0; step < Shape::kSteps; ++step) {
        for (int i = 0; i < Shape::kRm; ++i)
          for (int e = 0; e < Unit::kChunksA; ++e)
            read([&](const auto& lane) { return lane.places_a.at(i, step, e, 0, 0); });
        for (int j = 0; j < Shape::kRn; ++j)
          for (int e = 0; e < Unit::kChunksB; ++e)
            read([&](const auto& lane) { return Shape::kABytes + lane.places_b.at(j, step, e, 0, 0); });
      }
    }
    return count;
  }
  static Count writes() {
    const SourceA a(nullptr, kLd, kLd, kTileM, kTileK, 8);
    const SourceB b(nullptr, kLd, kLd, kTileN, kTileK, 8);
    Count count;
    count_writes<TileLoader<SourceA, f16, typename Shape::LayoutA, kTileM, kTileK, 8, kThreads, false>>(
        a, kThreads, Unit::kLanes, count);
    count_writes<TileLoader<SourceB, f16, typename Shape::LayoutB, kKn ? kTileK : kTileN, kKn ? kTileN : kTileK, 8,
                            kThreads, kKn>>(b, kThreads, Unit::kLanes, count);
    return count;
  }
  static void expect(double most_writes) {
    const double of_reads = reads().factor(), of_writes = writes().factor();
    // bench/amd_static.py reads these lines.
    std::printf("banks %s %dx%dx%d waves %dx%d mma %d: reads %.2f writes %.2f\n", kKn ? "kn" : "nk", kTileM, kTileN,
                kTileK, kWavesM, kWavesN, kM, of_reads, of_writes);
    EXPECT_EQ(of_reads, 1.0);
    EXPECT_LE(of_writes, most_writes);
  }
};

template <int kM, int kTileM, int kTileN, int kTileK, int kWavesM, int kWavesN>
void expect_mfma(double kn_writes) {
  Tile<Arch::gfx942, kM, kTileM, kTileN, kTileK, kWavesM, kWavesN, false>::expect(1);
  Tile<Arch::gfx942, kM, kTileM, kTileN, kTileK, kWavesM, kWavesN, true>::expect(kn_writes);
}

TEST(LdsBanks, ReadsOfMatrixTilesAreFreeOfConflicts) {
  // Rows of 64 bytes: what a wave transposes at once lies in rows that fill one half of the banks.
  expect_mfma<32, 128, 128, 32, 2, 2>(2);
  expect_mfma<16, 128, 128, 32, 2, 2>(2);
  expect_mfma<32, 128, 128, 32, 2, 4>(2);
  expect_mfma<32, 128, 128, 64, 2, 2>(1);
  expect_mfma<16, 128, 128, 64, 2, 2>(1);
  expect_mfma<32, 256, 128, 64, 2, 2>(1);
  expect_mfma<32, 256, 128, 64, 2, 4>(1);
  expect_mfma<32, 256, 256, 64, 2, 4>(1);
  expect_mfma<32, 64, 64, 64, 2, 2>(2);
  expect_mfma<16, 64, 64, 64, 2, 4>(2);
}

// The count itself: rows of 128 bytes read down a column without a permutation.
TEST(LdsBanks, AColumnOfPlainRowsConflictsInAllOfItsLanes) {
  Count count;
  std::vector<int> column;
  for (int lane = 0; lane < 64; ++lane) column.push_back(lane * 128);
  count.add(column, 16);
  EXPECT_EQ(count.factor(), 8.0);
}

}  // namespace
}  // namespace kgen
