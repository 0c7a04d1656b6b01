// gemm for few rows of A (m <= rows_m <= 16): streams B once at memory speed; A stays in the cache or in LDS.
//
//   block (one split of K, one batch)           nk: a wave holds rows_per_wave rows of B     kn: lanes_n lanes side by
//   side ┌──────────────┬──────────────┐             k →  lane 0   lane 1   …                     n →  lane 0  lane 1 …
//   lanes_n-1 │ wave (0,0)   │ wave (1,0)   │ wave_k 0    row  ████████ ████████ (vec_b elements each)   k    ██████
//   ██████ │ wave (0,1)   │ wave (1,1)   │ wave_k 1    row  ████████ ████████                       k+1  ██████  ██████
//   lanes_n … └──────────────┴──────────────┘             a lane: rows_per_wave*unroll loads in flight  a lane: unroll
//   loads in flight
//     wave_n: columns
//
// Each lane sums its own k in fp32 for every column it holds times rows_m; lanes are summed by shuffles, the waves_k
// waves of a column through LDS in order, the split_k blocks by split_k_reduce: the same bits on every run.
// A step's registers are loaded again for the next iteration as soon as they are added, so the loads in flight stay
// constant.
//
// With pack_b the kernel reads the nk copy of B that pack_b made once.
//
// With rmsnorm (nk alone) the rows of A are normalised on the way: A.B with the norm's weight as a factor of each term,
// squares of A summed by the same lanes, and 1 / sqrt(mean + eps) as a factor of the finished sum. Nothing waits for
// the norm.
//
// Legality: rows of B (and of A, for nk) start at multiples of vec_b elements; k < 2^31; n < 2^31; waves_n, rows_m,
// rows_per_wave, vec_b, lanes_n powers of two; for kn, n is a multiple of vec_b. k need be no multiple of anything: a
// step that not all lanes have is masked, the last k % vec_b elements are added one a lane. k_fit >= 1: k is whole
// steps, and there is one part; 2: and at most one iteration of each wave; 3: and exactly one.
#pragma once
#include "columns.h"
#include "epilogue.h"
#include "gemm_types.h"
#include "pack_b.h"
#include "prelude.h"
#include "reduce.h"
#include "split_k.h"

namespace kgen {
namespace skinny {

template <class C>
struct Shape {
  static constexpr bool kNk = C::pack_b || C::b_layout == b_layout::nk;           // packed B is nk
  static constexpr int kLanesN = kNk ? 1 : C::lanes_n;                            // lanes side by side along n
  static constexpr int kLaneColumns = kNk ? C::rows_per_wave : C::vec_b;          // columns of a lane
  static constexpr int kColumns = C::waves_n * kLanesN * kLaneColumns;            // of a block
  static constexpr int kStep = kNk ? kWaveSize * C::vec_b : kWaveSize / kLanesN;  // k that one load of each lane covers
  static constexpr int kIteration = C::unroll * kStep;
  static constexpr int kThreads = C::waves_n * C::waves_k * kWaveSize;
  static constexpr int kValues = kLaneColumns * C::rows_m;  // sums of a lane: [column][row of A]
  static constexpr int kSumsBytes = (C::waves_k * C::rows_m * kColumns * int(sizeof(float)) + 15) / 16 * 16;
};

// Whether the rows of A are normalised first (rmsnorm_gemm).
template <class C>
KGEN_HOST_DEVICE constexpr bool has_rmsnorm() {
  return requires { C::rmsnorm; };
}

// Whether D = act(A.B) * (A.B') with B' in the n rows behind B (rmsnorm_gemm). The rows of a wave alternate then: even
// ones of B, odd ones of B', and a block has half as many columns of D as rows of both.
template <class C>
KGEN_HOST_DEVICE constexpr bool is_gated() {
  if constexpr (requires { C::gated; })
    return C::gated != 0;
  else
    return false;
}
template <class C>
inline constexpr int kRowsOfColumn = is_gated<C>() ? 2 : 1;

// The A rows of one split, in memory or staged in LDS. Rows beyond m repeat the last one; their sums are not stored.
template <class C, class T>
struct Rows {
  const T* row[C::rows_m];

  template <class P>
  KGEN_DEVICE Rows(const P& p, i64 batch, i64 k_begin) {
    row[0] = p.a + batch * p.batch_stride_a + k_begin;
    KGEN_UNROLL
    for (int m = 1; m < C::rows_m; ++m) row[m] = row[0] + (m < p.m ? m : p.m - 1) * p.lda;
  }

  // Copies `count` elements of each row behind the block's sums in LDS and reads from there afterwards.
  KGEN_DEVICE void stage(int count) {
    using S = Shape<C>;
    T* staged = lds<T>(S::kSumsBytes);
    const int whole = S::kNk ? count / C::vec_b * C::vec_b : 0;
    const int pitch = (count + C::vec_b - 1) / C::vec_b * C::vec_b;
    KGEN_UNROLL
    for (int m = 0; m < C::rows_m; ++m) {
      T* to = staged + m * pitch;
      for (int i = thread_x() * C::vec_b; i < whole; i += S::kThreads * C::vec_b)
        store_vec<T, C::vec_b>(to + i, load_vec<T, C::vec_b>(row[m] + i));
      for (int i = whole + thread_x(); i < count; i += S::kThreads) to[i] = row[m][i];
      row[m] = to;
    }
    sync_lds();
  }
};

// B [n, k]: a step is one vector of vec_b consecutive k in each lane, of each of rows_per_wave rows.
template <class C, class T>
struct StreamNk {
  using S = Shape<C>;
  static constexpr bool kAhead = !C::a_lds && C::rows_m * C::unroll <= 8;  // A is loaded with B, an iteration ahead
  static constexpr bool kNorm = has_rmsnorm<C>();
  struct Stage {
    Packed<T, C::vec_b> weight[C::rows_per_wave];
    Packed<T, C::vec_b> input[kAhead ? C::rows_m : 1];
    Packed<T, C::vec_b> norm;  // kNorm
  };
  const T* row[C::rows_per_wave];
  Rows<C, T> a;
  const T* norm = nullptr;                    // the norm's weight
  float squares[kNorm ? C::rows_m : 1] = {};  // of A, this lane's terms
  int lane, whole;                            // whole: k that come in whole vectors

  template <class P>
  KGEN_DEVICE StreamNk(const P& p, i64 batch, i64 k_begin, int column, int count)
      : a(p, batch, k_begin), lane(lane_id()), whole(count / C::vec_b * C::vec_b) {
    const T* b = p.b + batch * p.batch_stride_b;
    i64 ldb = p.ldb;
    if constexpr (C::pack_b != 0) {
      ldb = packed_stride<C>(p);
      b = p.packed + batch * packed_rows<C>(p) * ldb;
    }
    KGEN_UNROLL
    for (int r = 0; r < C::rows_per_wave; ++r) {
      const int wanted = column / kRowsOfColumn<C> + r / kRowsOfColumn<C>, last = int(p.n) - 1;
      i64 at = u32(wanted < last ? wanted : last);
      if (is_gated<C>() && r % 2 != 0) at += p.n;
      row[r] = b + at * ldb + k_begin;
    }
    if constexpr (kNorm) norm = p.norm + k_begin;
  }
  KGEN_DEVICE int steps() const { return whole / S::kStep; }
  KGEN_DEVICE bool edge() const { return whole % S::kStep != 0; }

  // kEdge: a step that only the first lanes have.
  template <bool kEdge>
  KGEN_DEVICE void load(Stage& stage, int step) const {
    const int k = step * S::kStep + lane * C::vec_b;
    KGEN_UNROLL
    for (int r = 0; r < C::rows_per_wave; ++r)
      stage.weight[r] = !kEdge || k < whole ? Packed<T, C::vec_b>::load_once(row[r] + k) : Packed<T, C::vec_b>{};
    if constexpr (kAhead) {
      KGEN_UNROLL
      for (int m = 0; m < C::rows_m; ++m) stage.input[m] = load_or_zero<C::vec_b>(a.row[m] + k, !kEdge || k < whole);
    }
    if constexpr (kNorm) stage.norm = load_or_zero<C::vec_b>(norm + k, !kEdge || k < whole);
  }
  template <bool kEdge>
  KGEN_DEVICE void add(const Stage& stage, int step, float (&sum)[S::kValues]) {
    const int k = step * S::kStep + lane * C::vec_b;
    KGEN_UNROLL
    for (int m = 0; m < C::rows_m; ++m) {
      Packed<T, C::vec_b> x;
      if constexpr (kAhead)
        x = stage.input[m];
      else
        x = load_or_zero<C::vec_b>(a.row[m] + k, !kEdge || k < whole);
      KGEN_UNROLL
      for (int e = 0; e < C::vec_b; ++e) {
        float value = x[e];
        if constexpr (kNorm) {
          squares[m] = fma_f(value, value, squares[m]);
          value *= stage.norm[e];
        }
        KGEN_UNROLL
        for (int r = 0; r < C::rows_per_wave; ++r) {
          float& s = sum[r * C::rows_m + m];
          s = fma_f(stage.weight[r][e], value, s);
        }
      }
    }
  }
  // The last k % vec_b, one a lane.
  KGEN_DEVICE void add_tail(int count, float (&sum)[S::kValues]) {
    const int k = whole + lane;
    if (k >= count) return;
    KGEN_UNROLL
    for (int m = 0; m < C::rows_m; ++m) {
      float value = to_float(a.row[m][k]);
      if constexpr (kNorm) {
        squares[m] = fma_f(value, value, squares[m]);
        value *= to_float(norm[k]);
      }
      KGEN_UNROLL
      for (int r = 0; r < C::rows_per_wave; ++r) {
        float& s = sum[r * C::rows_m + m];
        s = fma_f(to_float(row[r][k]), value, s);
      }
    }
  }
};

// B [k, n]: a step is one k in each group of lanes_n lanes, vec_b consecutive columns a lane. n is a multiple of vec_b.
template <class C, class T>
struct StreamKn {
  using S = Shape<C>;
  static constexpr bool kAhead = false;
  struct Stage {
    Packed<T, C::vec_b> weight;
  };
  const T* b;
  i64 ldb;
  Rows<C, T> a;
  int lane_k, count;

  template <class P>
  KGEN_DEVICE StreamKn(const P& p, i64 batch, i64 k_begin, int column, int elements)
      : b(p.b + batch * p.batch_stride_b + k_begin * p.ldb + (column < p.n ? column : p.n - C::vec_b)),
        ldb(p.ldb),
        a(p, batch, k_begin),
        lane_k(lane_id() / S::kLanesN),
        count(elements) {}
  KGEN_DEVICE int steps() const { return count / S::kStep; }
  KGEN_DEVICE bool edge() const { return count % S::kStep != 0; }

  template <bool kEdge>
  KGEN_DEVICE void load(Stage& stage, int step) const {
    const int k = step * S::kStep + lane_k;
    stage.weight = load_or_zero<C::vec_b>(b + k * ldb, !kEdge || k < count);
  }
  template <bool kEdge>
  KGEN_DEVICE void add(const Stage& stage, int step, float (&sum)[S::kValues]) const {
    const int k = step * S::kStep + lane_k;
    KGEN_UNROLL
    for (int m = 0; m < C::rows_m; ++m) {
      const float value = !kEdge || k < count ? to_float(a.row[m][k]) : 0.0f;
      KGEN_UNROLL
      for (int e = 0; e < C::vec_b; ++e) {
        float& s = sum[e * C::rows_m + m];
        s = fma_f(stage.weight[e], value, s);
      }
    }
  }
  KGEN_DEVICE void add_tail(int, float (&)[S::kValues]) const {}
};

// Adds all steps of one wave to `sum`: iterations of `unroll` steps, dealt out over the waves_k waves of a column.
// then(): called once the first loads are on their way. What k_fit knows of k is left out of the code: a cold start
// reads every instruction from memory, and the first load waits for those before it.
template <class C, class Stream, class Then>
KGEN_DEVICE void accumulate(Stream& stream, int wave_k, int count, float (&sum)[Shape<C>::kValues], const Then& then) {
  constexpr int kStride = C::waves_k * C::unroll;
  constexpr bool kEdge = C::k_fit == 0, kLoop = C::k_fit <= 1, kAll = C::k_fit == 3;
  const int steps = stream.steps(), begin = wave_k * C::unroll;
  typename Stream::Stage stage[C::unroll] = {};
  KGEN_UNROLL
  for (int u = 0; u < C::unroll; ++u)
    if (kAll || begin + u < steps) stream.template load<false>(stage[u], begin + u);
  then();
  if constexpr (C::a_lds) stream.a.stage(count);
  if constexpr (kEdge) {
    if (stream.edge() && steps / C::unroll % C::waves_k == wave_k) {
      typename Stream::Stage last;
      stream.template load<true>(last, steps);
      stream.template add<true>(last, steps, sum);
    }
  }
  if constexpr (kLoop) {
    KGEN_NO_UNROLL
    for (int step = begin; step < steps; step += kStride) {
      KGEN_UNROLL
      for (int u = 0; u < C::unroll; ++u) {
        if (step + u < steps) stream.template add<false>(stage[u], step + u, sum);
        if (step + u + kStride < steps) stream.template load<false>(stage[u], step + u + kStride);
      }
    }
  } else {  // a stage that was not loaded is zeros: under the condition of its load, both would be done in one place
    KGEN_UNROLL
    for (int u = 0; u < C::unroll; ++u)
      if (kAll || Stream::kAhead || begin + u < steps) stream.template add<false>(stage[u], begin + u, sum);
  }
  if constexpr (kEdge)
    if (wave_k == 0) stream.add_tail(count, sum);
}

// Sums of squares of the waves that share the terms, behind the sums in LDS: written before finish(), whose barrier
// they need, and read by it as the factor of a row.
template <class C, class P>
struct RmsScale {
  const P& p;

  KGEN_DEVICE static float* squares() { return lds<float>(Shape<C>::kSumsBytes); }  // [wave_k][row of A]
  KGEN_DEVICE static void write(int wave_n, int wave_k, const float (&sums)[C::rows_m]) {
    KGEN_UNROLL
    for (int m = 0; m < C::rows_m; ++m) {
      const float sum = reduce_wave<kWaveSize>(sums[m], Add());
      if (wave_n == 0 && lane_id() == 0) squares()[wave_k * C::rows_m + m] = sum;
    }
  }
  KGEN_DEVICE float operator()(int row) const {
    float sum = 0;
    for (int part = 0; part < C::waves_k; ++part) sum += squares()[part * C::rows_m + row];
    return rsqrt_f(sum / float(p.k) + p.eps);
  }
};
struct NoScale {
  KGEN_DEVICE float operator()(int) const { return 1.0f; }
};

// What the epilogue reads for the first output that this work-item writes in finish().
template <class C, int kColumns, class P>
KGEN_DEVICE EpilogueOperands<C, 1> operands_ahead(const P& p, i64 batch, i64 block_column) {
  EpilogueOperands<C, 1> operands;
  const int row = C::rows_m == 1 ? 0 : thread_x() / kColumns;
  const i64 column = block_column + (C::rows_m == 1 ? thread_x() : thread_x() % kColumns);
  if (C::split_k == 1 && thread_x() < C::rows_m * kColumns && row < p.m && column < p.n)
    operands.load(p, batch, row, column);
  return operands;
}

// The end of a kernel whose lanes hold sums [column][row of A]: those of the lanes that share a column are added by
// shuffles, those of the waves through LDS in order; then the epilogue, or a part's sums to `partial`. `local`: this
// lane's first column of the block's kColumns; lanes_n lanes lie side by side. `ahead`: operands_ahead(). `scale`: a
// factor of each row of A.
template <class C, int kLanesN, int kLaneColumns, int kColumns, int kThreads, class P, class Scale>
KGEN_DEVICE void finish(const P& p, i64 batch, int wave_k, int local, i64 block_column,
                        float (&sum)[kLaneColumns * C::rows_m], EpilogueOperands<C, 1> ahead, const Scale& scale) {
  constexpr int kValues = kLaneColumns * C::rows_m;
  // LDS: sums [wave_k][row of A][column of the block]
  float* sums = lds<float>(0);
  int first = 0;
  bool writer = true;
  reduce_lanes<kValues, kWaveSize / 2, kLanesN>(sum, lane_id(), first, writer);
  constexpr int kLanes = kWaveSize / kLanesN, kLeft = kValues > kLanes ? kValues / kLanes : 1;
  if (writer) {
    KGEN_UNROLL
    for (int i = 0; i < kLeft; ++i) {
      const int value = first + i, column = local + value / C::rows_m, row = value % C::rows_m;
      sums[(wave_k * C::rows_m + row) * kColumns + column] = sum[i];
    }
  }
  sync_lds();
  constexpr int kEach = kRowsOfColumn<C>, kOutColumns = kColumns / kEach, kOutputs = C::rows_m * kOutColumns;
  for (int round = 0; round < (kOutputs + kThreads - 1) / kThreads; ++round) {
    const int output = thread_x() + round * kThreads;
    const int row = C::rows_m == 1 ? 0 : output / kOutColumns, i = output * kEach;
    const i64 column = block_column / kEach + (C::rows_m == 1 ? output : output % kOutColumns);
    if (output >= kOutputs || (C::rows_m > 1 && row >= p.m) || column >= p.n) continue;
    float total = 0;
    for (int w = 0; w < C::waves_k; ++w) total += sums[w * C::rows_m * kColumns + i];
    if constexpr (C::split_k > 1) {
      p.partial[((block_y() * p.batch + batch) * p.m + row) * p.n + column] = total;
    } else if constexpr (is_gated<C>()) {
      float gated = 0;
      for (int part = 0; part < C::waves_k; ++part) gated += sums[part * C::rows_m * kColumns + i + 1];
      const float factor = p.alpha * scale(row);
      const float value[1] = {activate<C>(total * factor) * (gated * factor)};
      store_columns<1>(p.d + batch * p.batch_stride_d + row * p.ldd + column, 1, value);
    } else {
      if (round > 0) ahead.load(p, batch, row, column);
      const float one[1] = {total * scale(row)};
      epilogue(p, batch, row, column, one, ahead);
    }
  }
}
template <class C, int kLanesN, int kLaneColumns, int kColumns, int kThreads, class P>
KGEN_DEVICE void finish(const P& p, i64 batch, int wave_k, int local, i64 block_column,
                        float (&sum)[kLaneColumns * C::rows_m]) {
  finish<C, kLanesN, kLaneColumns, kColumns, kThreads>(p, batch, wave_k, local, block_column, sum,
                                                       operands_ahead<C, kColumns>(p, batch, block_column), NoScale());
}

template <class C, class Stream, class P>
KGEN_DEVICE void stream_columns(const P& p) {
  using S = Shape<C>;
  const int wave = uniform(thread_x() / kWaveSize), lane = lane_id();
  const int wave_n = wave % C::waves_n, wave_k = wave / C::waves_n;
  const i64 batch = block_z();
  i64 k_begin = 0;
  int count = int(p.k);
  if constexpr (C::split_k > 1) {
    const i64 chunk = ((p.k + C::split_k - 1) / C::split_k + S::kStep - 1) / S::kStep * S::kStep;
    k_begin = block_y() * chunk < p.k ? block_y() * chunk : p.k;
    count = int(p.k - k_begin < chunk ? p.k - k_begin : chunk);
  }
  const int local =
      (wave_n * S::kLanesN + lane % S::kLanesN) * S::kLaneColumns;  // this lane's first column of the block's
  const int block_column = block_x() * S::kColumns;

  float sum[S::kValues] = {};
  EpilogueOperands<C, 1> ahead;
  Stream stream(p, batch, k_begin, block_column + local, count);
  accumulate<C>(stream, wave_k, count, sum, [&] { ahead = operands_ahead<C, S::kColumns>(p, batch, block_column); });
  if constexpr (has_rmsnorm<C>()) {
    const RmsScale<C, P> scale{p};
    scale.write(wave_n, wave_k, stream.squares);
    finish<C, S::kLanesN, S::kLaneColumns, S::kColumns, S::kThreads>(p, batch, wave_k, local, block_column, sum, ahead,
                                                                     scale);
  } else {
    finish<C, S::kLanesN, S::kLaneColumns, S::kColumns, S::kThreads>(p, batch, wave_k, local, block_column, sum, ahead,
                                                                     NoScale());
  }
}

}  // namespace skinny

template <class C, class P>
KGEN_DEVICE void gemm_skinny(const P& p) {
  using T = typename C::dtype;
  if constexpr (skinny::Shape<C>::kNk)
    skinny::stream_columns<C, skinny::StreamNk<C, T>>(p);
  else
    skinny::stream_columns<C, skinny::StreamKn<C, T>>(p);
}

}  // namespace kgen
