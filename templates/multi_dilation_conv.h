// One weight, several dilations: conv2d's implicit GEMM (conv.h) once a branch, in one launch.
//
//   grid x: tiles of pixels x channels, y: parts of K, z: branch = dilation
//   y nhwc:  pixel │ branch 0: k channels │ branch 1 │ branch 2 │      nchw: the branches' planes one after the other
//
// A branch is a convolution of stride 1 whose padding keeps the image's size. The blocks of all branches run together,
// so that each reads the weights, and the image with the others' taps, from the L2.
#pragma once
#include "conv.h"
#include "conv_types.h"
#include "prelude.h"

namespace kgen {

// A branch as conv.h sees a convolution: the names that it reads from the parameters.
template <class C>
struct Branch {
  using T = typename C::dtype;
  const T *x, *weight;
  const typename C::bias_dtype* bias;
  const float *scale, *shift;
  const T* residual;
  typename C::out_dtype* y;
  T *image, *packed;
  float* partial;
  i64 n, c, h, w, k, r, s, p, q, stride_h, stride_w, pad_h, pad_w, dil_h, dil_w, groups, ldx, ldy, ldr;
};

template <class C, class P>
KGEN_DEVICE Branch<C> branch_of(const P& p, int index) {
  const i64 dilation = C::dils(index), pixels = p.h * p.w, first = index * p.k;
  Branch<C> b;
  b.x = p.x;
  b.weight = p.weight;
  b.bias = p.bias;
  b.scale = p.scale;
  b.shift = p.shift;
  b.residual = nullptr;
  b.y = p.y + (C::layout == layout::nhwc ? first : first * pixels);
  b.image = p.image;
  b.packed = p.packed;
  b.partial = p.partial + index * C::split_k * p.n * pixels * p.k;
  b.n = p.n;
  b.c = p.c;
  b.h = b.p = p.h;
  b.w = b.q = p.w;
  b.k = p.k;
  b.r = p.r;
  b.s = p.s;
  b.stride_h = b.stride_w = 1;
  b.pad_h = p.r / 2 * dilation;
  b.pad_w = p.s / 2 * dilation;
  b.dil_h = b.dil_w = dilation;
  b.groups = 1;
  b.ldx = p.ldx;
  b.ldy = p.ldy;
  b.ldr = 0;
  return b;
}

template <class C, class P>
KGEN_DEVICE void multi_dilation_tile(const P& p) {
  conv_group<C>(branch_of<C>(p, block_z()), 0);
}

template <class C, class P>
KGEN_DEVICE void multi_dilation_reduce(const P& p) {
  conv_reduce<C>(branch_of<C>(p, block_z()));
}

template <class C, class P>
KGEN_DEVICE void multi_dilation_pack_image(const P& p) {
  pack_image<C>(branch_of<C>(p, 0));
}

template <class C, class P>
KGEN_DEVICE void multi_dilation_pack_weight(const P& p) {
  pack_weight<C>(branch_of<C>(p, 0));
}

}  // namespace kgen
