// The copy engine of sm_90: boxes of a tensor in memory to LDS by one work-item, counted by a barrier (prelude.h). How
// the tensor is walked stands in a kernel parameter, a TensorMap, that the launch makes (`tensor_maps` of an operator's
// variant); what lies outside the tensor counts as 0.
//
//   box of 64 columns of 16 bits (128 bytes) x rows  ->  rows of 128 bytes in LDS, 16-byte chunk i of row r at i ^ r %
//   8
//
// Such a box goes to a multiple of 1024 bytes of the block's LDS.
#pragma once
#include "prelude.h"

namespace kgen {

// Fetches the map itself, before it is needed.
KGEN_DEVICE void tensor_map_prefetch(const TensorMap* map) {
  asm volatile("prefetch.tensormap [%0];" ::"l"(map) : "memory");
}

// The box at column x, row y, matrix z of a tensor of three axes; `barrier` counts its bytes.
KGEN_DEVICE void tensor_copy(u32 lds, const TensorMap* map, int x, int y, int z, u32 barrier) {
  asm volatile(
      "cp.async.bulk.tensor.3d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4, %5}], "
      "[%2];" ::"r"(lds),
      "l"(map), "r"(barrier), "r"(x), "r"(y), "r"(z)
      : "memory");
}
// The same of a tensor of four axes.
KGEN_DEVICE void tensor_copy(u32 lds, const TensorMap* map, int x, int y, int z, int w, u32 barrier) {
  asm volatile(
      "cp.async.bulk.tensor.4d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4, %5, %6}], "
      "[%2];" ::"r"(lds),
      "l"(map), "r"(barrier), "r"(x), "r"(y), "r"(z), "r"(w)
      : "memory");
}
// Of three axes, to the same place of every block of the cluster whose bit is set in `blocks`; the barrier of each
// counts.
KGEN_DEVICE void tensor_copy_to(u32 lds, const TensorMap* map, int x, int y, int z, u32 barrier, int blocks) {
  asm volatile(
      "cp.async.bulk.tensor.3d.shared::cluster.global.tile.mbarrier::complete_tx::bytes.multicast::cluster [%0], "
      "[%1, {%3, %4, %5}], [%2], %6;" ::"r"(lds),
      "l"(map), "r"(barrier), "r"(x), "r"(y), "r"(z), "h"(u16(blocks))
      : "memory");
}
// Pixels of images [n][h][w][c], channels from c on: as many as the map says, in order, from the one whose window
// begins at n, h, w; of each window the pixel r rows and s columns on.
KGEN_DEVICE void tensor_copy_pixels(u32 lds, const TensorMap* map, int c, int w, int h, int n, int s, int r,
                                    u32 barrier) {
  asm volatile(
      "cp.async.bulk.tensor.4d.shared::cluster.global.im2col.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4, %5, "
      "%6}], [%2], {%7, %8};" ::"r"(lds),
      "l"(map), "r"(barrier), "r"(c), "r"(w), "r"(h), "r"(n), "h"(u16(s)), "h"(u16(r))
      : "memory");
}

// The same to the same place of every block of the cluster whose bit is set in `blocks`; the barrier of each counts.
KGEN_DEVICE void tensor_copy_pixels_to(u32 lds, const TensorMap* map, int c, int w, int h, int n, int s, int r,
                                       u32 barrier, int blocks) {
  asm volatile(
      "cp.async.bulk.tensor.4d.shared::cluster.global.im2col.mbarrier::complete_tx::bytes.multicast::cluster [%0], "
      "[%1, {%3, %4, %5, %6}], [%2], {%7, %8}, %9;" ::"r"(lds),
      "l"(map), "r"(barrier), "r"(c), "r"(w), "r"(h), "r"(n), "h"(u16(s)), "h"(u16(r)), "h"(u16(blocks))
      : "memory");
}

// The way back: a box from LDS to the tensor; what lies outside is not written. LDS that work-items wrote before needs
// their async_fence() and a barrier of them and the one that stores.
KGEN_DEVICE void tensor_store(const TensorMap* map, int x, int y, int z, u32 lds) {
  asm volatile("cp.async.bulk.tensor.3d.global.shared::cta.tile.bulk_group [%0, {%2, %3, %4}], [%1];" ::"l"(map),
               "r"(lds), "r"(x), "r"(y), "r"(z)
               : "memory");
}
KGEN_DEVICE void tensor_store_commit() { asm volatile("cp.async.bulk.commit_group;" ::: "memory"); }
// Until the LDS of this work-item's stores, but for the last kPending groups, may be written again; the results are
// there when the kernel ends.
template <int kPending = 0>
KGEN_DEVICE void tensor_store_wait() {
  asm volatile("cp.async.bulk.wait_group.read %0;" ::"n"(kPending) : "memory");
}

// Arrives at a barrier of another block of the cluster (cluster_address()). It orders nothing but reads of LDS: with
// the cluster's scope it would wait for every access on its way (178 became 257 us in a product of 4096^3).
KGEN_DEVICE void barrier_arrive_cluster(u32 barrier) {
  asm volatile("mbarrier.arrive.shared::cluster.b64 _, [%0];" ::"r"(barrier) : "memory");
}

}  // namespace kgen
