// Enumerators of the convolutions' attributes and tunables, shared by their templates and references.
#pragma once

namespace kgen {

// Order of an image tensor in memory; weights are [k, r, s, c] with nhwc and [k, c, r, s] with nchw.
enum class layout { nhwc, nchw };

// How a direct convolution gets its inputs.
enum class input {
  lines,  // a row of each work-item's window after the other
  ahead,  // all of a work-item's window before anything is waited for
  tile    // the window of the block, through LDS
};

// What the implicit GEMM reads as its rows, one an output pixel.
enum class gather {
  rows,    // the pixels themselves: 1x1, stride 1, no padding
  taps,    // of each tap a run of channels
  halo,    // the same, but pixels once for all columns of a kernel row (conv_halo.h)
  folded,  // of each kernel row the run of its columns and channels: no padding at the sides, nothing between columns
  packed   // taps of a copy, nhwc with channels padded to whole vectors
};

}  // namespace kgen
