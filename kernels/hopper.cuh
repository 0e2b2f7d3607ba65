// SPDX-License-Identifier: Apache-2.0
// Hopper's own instructions as functions: mbarriers, the bulk tensor copy engine (TMA), warpgroup
// matrix products (wgmma) and register reallocation. Names and meanings follow the PTX ISA manual,
// sections 9.7.13 (mbarrier), 9.7.9.27 (bulk copies) and 9.7.15 (wgmma). Only sm_90a compiles them.
#pragma once

#include <cuda.h>

#include <cstdint>

namespace starattn::hopper {

__device__ __forceinline__ std::uint32_t shared_address(const void* pointer) {
  return static_cast<std::uint32_t>(__cvta_generic_to_shared(pointer));
}

// 16 bytes of shared memory.
__device__ __forceinline__ uint4 read_shared(std::uint32_t from) {
  uint4 x;
  asm volatile("ld.shared.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(x.x), "=r"(x.y), "=r"(x.z), "=r"(x.w)
               : "r"(from)
               : "memory");
  return x;
}
__device__ __forceinline__ void write_shared(std::uint32_t to, const uint4& x) {
  asm volatile("st.shared.v4.u32 [%0], {%1, %2, %3, %4};" ::"r"(to), "r"(x.x), "r"(x.y), "r"(x.z),
               "r"(x.w)
               : "memory");
}

// --- mbarriers: a phase ends when its arrivals and its expected bytes are complete

__device__ __forceinline__ void barrier_init(std::uint64_t* barrier, int n_arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(barrier)),
               "r"(n_arrivals)
               : "memory");
}

__device__ __forceinline__ void barrier_init_done() {
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}

__device__ __forceinline__ void barrier_arrive(std::uint64_t* barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(shared_address(barrier))
               : "memory");
}

__device__ __forceinline__ void barrier_expect(std::uint64_t* barrier, int n_bytes) {
  asm volatile(
      "mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(barrier)),
      "r"(n_bytes)
      : "memory");
}

__device__ __forceinline__ void barrier_wait(std::uint64_t* barrier, int phase) {
  asm volatile(
      "{\n.reg .pred done;\n"
      "WAIT:\n"
      "mbarrier.try_wait.parity.acquire.cta.shared::cta.b64 done, [%0], %1;\n"
      "@!done bra WAIT;\n}" ::"r"(shared_address(barrier)),
      "r"(phase)
      : "memory");
}

// What this thread has written to shared memory is there for the copy engine and wgmma.
__device__ __forceinline__ void writes_are_done() {
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

// Named barriers among some warps of a block.
__device__ __forceinline__ void named_sync(int name, int n_threads) {
  asm volatile("bar.sync %0, %1;" ::"r"(name), "r"(n_threads) : "memory");
}
__device__ __forceinline__ void named_arrive(int name, int n_threads) {
  asm volatile("bar.arrive %0, %1;" ::"r"(name), "r"(n_threads) : "memory");
}

// A place in a ring of kStages buffers, and the phase of its barrier.
template <int kStages>
struct Ring {
  int stage = 0, phase = 0;
  __device__ void step() {
    if (++stage == kStages) {
      stage = 0;
      phase ^= 1;
    }
  }
};

// --- TMA

// Copies the box at (x, y, z) of a 3-d tensor into shared memory and counts its bytes on `barrier`.
__device__ __forceinline__ void tma_load(void* to, const CUtensorMap* map, std::uint64_t* barrier,
                                         int x, int y, int z) {
  asm volatile(
      "cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes "
      "[%0], [%1, {%3, %4, %5}], [%2];" ::"r"(shared_address(to)),
      "l"(map), "r"(shared_address(barrier)), "r"(x), "r"(y), "r"(z)
      : "memory");
}

// Copies n_bytes, a multiple of 16, between 16-byte aligned places, and counts them on `barrier`.
__device__ __forceinline__ void copy_bytes(void* to, const void* from, int n_bytes,
                                           std::uint64_t* barrier) {
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::
          "r"(shared_address(to)),
      "l"(from), "r"(n_bytes), "r"(shared_address(barrier))
      : "memory");
}

__device__ __forceinline__ void prefetch_map(const CUtensorMap* map) {
  asm volatile("prefetch.tensormap [%0];" ::"l"(map) : "memory");
}

// --- registers

template <int kRegisters>
__device__ __forceinline__ void take_registers() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kRegisters));
}
template <int kRegisters>
__device__ __forceinline__ void give_registers() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kRegisters));
}

// --- wgmma

__device__ __forceinline__ void wgmma_fence() {
  asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}
__device__ __forceinline__ void wgmma_commit() {
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}
template <int kStillRunning>
__device__ __forceinline__ void wgmma_wait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kStillRunning) : "memory");
}

// Tells the compiler that wgmma may have written these registers behind its back.
template <int kSize>
__device__ __forceinline__ void touch(float (&x)[kSize]) {
#pragma unroll
  for (int i = 0; i < kSize; ++i) asm volatile("" : "+f"(x[i])::"memory");
}
template <int kSize>
__device__ __forceinline__ void touch(std::uint32_t (&x)[kSize]) {
#pragma unroll
  for (int i = 0; i < kSize; ++i) asm volatile("" : "+r"(x[i])::"memory");
}

// Descriptor of a tile with 128-byte rows in the 128-byte swizzle; groups of 8 rows lie 1024 bytes
// apart. `leading_bytes`: from one group of 64 columns to the next where columns are the
// contiguous, non-reduced dimension (V); unused otherwise (Q, K).
__device__ __forceinline__ std::uint64_t tile_descriptor(const void* tile, int leading_bytes) {
  return (static_cast<std::uint64_t>(1) << 62) | (static_cast<std::uint64_t>(1024 >> 4) << 32) |
         (static_cast<std::uint64_t>(leading_bytes >> 4) << 16) |
         ((shared_address(tile) & 0x3FFFF) >> 4);
}

#define STARATTN_R0 "%0,%1,%2,%3,%4,%5,%6,%7,"
#define STARATTN_R1 "%8,%9,%10,%11,%12,%13,%14,%15,"
#define STARATTN_R2 "%16,%17,%18,%19,%20,%21,%22,%23,"
#define STARATTN_R3 "%24,%25,%26,%27,%28,%29,%30,%31"
#define STARATTN_R4 ",%32,%33,%34,%35,%36,%37,%38,%39,"
#define STARATTN_R5 "%40,%41,%42,%43,%44,%45,%46,%47,"
#define STARATTN_R6 "%48,%49,%50,%51,%52,%53,%54,%55,"
#define STARATTN_R7 "%56,%57,%58,%59,%60,%61,%62,%63"
#define STARATTN_R8 ",%64,%65,%66,%67,%68,%69,%70,%71"
#define STARATTN_R9 ",%72,%73,%74,%75,%76,%77,%78,%79"
#define STARATTN_R10 ",%80,%81,%82,%83,%84,%85,%86,%87"
#define STARATTN_D16 STARATTN_R0 "%8,%9,%10,%11,%12,%13,%14,%15"
#define STARATTN_D32 STARATTN_R0 STARATTN_R1 STARATTN_R2 STARATTN_R3
#define STARATTN_D64 STARATTN_D32 STARATTN_R4 STARATTN_R5 STARATTN_R6 STARATTN_R7
#define STARATTN_D72 STARATTN_D64 STARATTN_R8
#define STARATTN_D80 STARATTN_D72 STARATTN_R9
#define STARATTN_D88 STARATTN_D80 STARATTN_R10
#define STARATTN_O8(i)                                                                        \
  "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3]), "+f"(d[i + 4]), "+f"(d[i + 5]), \
      "+f"(d[i + 6]), "+f"(d[i + 7])
#define STARATTN_O16 STARATTN_O8(0), STARATTN_O8(8)
#define STARATTN_O32 STARATTN_O16, STARATTN_O8(16), STARATTN_O8(24)
#define STARATTN_O64 \
  STARATTN_O32, STARATTN_O8(32), STARATTN_O8(40), STARATTN_O8(48), STARATTN_O8(56)
#define STARATTN_O72 STARATTN_O64, STARATTN_O8(64)
#define STARATTN_O80 STARATTN_O72, STARATTN_O8(72)
#define STARATTN_O88 STARATTN_O80, STARATTN_O8(80)

// d[64, n] (+)= A[64, 16] B[n, 16]^T, A and B in shared memory, both with contiguous reduced
// dimension. accumulate 0 overwrites d.
#define STARATTN_WGMMA_SS(n, regs, a, b, c)                                                    \
  __device__ __forceinline__ void wgmma_ss(float(&d)[regs], std::uint64_t desc_a,              \
                                           std::uint64_t desc_b, int accumulate) {             \
    asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %" #c                                       \
                 ", 0;\n"                                                                      \
                 "wgmma.mma_async.sync.aligned.m64n" #n "k16.f32.bf16.bf16 {" STARATTN_D##regs \
                 "}, %" #a ", %" #b ", p, 1, 1, 0, 0;\n}"                                      \
                 : STARATTN_O##regs                                                            \
                 : "l"(desc_a), "l"(desc_b), "r"(accumulate));                                 \
  }
STARATTN_WGMMA_SS(32, 16, 16, 17, 18)
STARATTN_WGMMA_SS(64, 32, 32, 33, 34)
STARATTN_WGMMA_SS(128, 64, 64, 65, 66)
STARATTN_WGMMA_SS(176, 88, 88, 89, 90)

// d[64, 128] (+)= A[64, 32] B[128, 32]^T, both e4m3 in shared memory. Of each sum the tensor cores
// keep some 14 bits (DeepSeek-V3, arXiv 2412.19437, section 3.3.2): add up no more than 128
// products.
__device__ __forceinline__ void wgmma_f8(float (&d)[64], std::uint64_t desc_a, std::uint64_t desc_b,
                                         int accumulate) {
  asm volatile(
      "{\n.reg .pred p;\nsetp.ne.b32 p, %66, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n128k32.f32.e4m3.e4m3 {" STARATTN_D64
      "}, %64, %65, p, 1, 1;\n}"
      : STARATTN_O64
      : "l"(desc_a), "l"(desc_b), "r"(accumulate));
}

// d[64, n] (+)= A[64, 16] B[16, n], A in registers, B in shared memory with contiguous columns.
#define STARATTN_WGMMA_RS(name, n, regs, a0, a1, a2, a3, b, c, transposed)                         \
  __device__ __forceinline__ void name(float(&d)[regs], const std::uint32_t* a,                    \
                                       std::uint64_t desc_b, int accumulate) {                     \
    asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %" #c                                           \
                 ", 0;\n"                                                                          \
                 "wgmma.mma_async.sync.aligned.m64n" #n "k16.f32.bf16.bf16 {" STARATTN_D##regs     \
                 "}, {%" #a0 ",%" #a1 ",%" #a2 ",%" #a3 "}, %" #b ", p, 1, 1, " #transposed ";\n}" \
                 : STARATTN_O##regs                                                                \
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(desc_b), "r"(accumulate));      \
  }
STARATTN_WGMMA_RS(wgmma_rs, 64, 32, 32, 33, 34, 35, 36, 37, 1)
STARATTN_WGMMA_RS(wgmma_rs, 128, 64, 64, 65, 66, 67, 68, 69, 1)
// The same with B[n, 16]^T, whose reduced dimension is contiguous.
STARATTN_WGMMA_RS(wgmma_rows, 32, 16, 16, 17, 18, 19, 20, 21, 0)
STARATTN_WGMMA_RS(wgmma_rows, 64, 32, 32, 33, 34, 35, 36, 37, 0)

}  // namespace starattn::hopper
