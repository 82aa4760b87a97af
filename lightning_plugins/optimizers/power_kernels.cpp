// The signed power of gradients on CPUs, alone and fused with AdamW's update.
//
// power_kernels.py compiles this file once. Arithmetic is in single precision for float and
// bfloat16. Both operators return false, and change nothing, for tensors that they do not support.

#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <torch/library.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <vector>

// The loader of the library selects the version for the CPU at hand.
#if defined(__x86_64__) && defined(__linux__) && defined(__GNUC__) && !defined(__clang__)
#if __GNUC__ >= 12
#define FOR_EACH_CPU __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define FOR_EACH_CPU __attribute__((target_clones("avx512f", "avx2", "default")))
#endif
#else
#define FOR_EACH_CPU
#endif

#define INLINE inline __attribute__((always_inline))

namespace {

constexpr int64_t kChunk = 16384;          // elements that one thread takes at once
constexpr int64_t kWorthAThread = 32768;   // elements, as in PyTorch's own elementwise loops

using BFloat16Bits = uint16_t;

INLINE float wide(float x) { return x; }

INLINE float wide(BFloat16Bits x) { return std::bit_cast<float>(static_cast<uint32_t>(x) << 16); }

INLINE void narrow(float x, float& out) { out = x; }

INLINE void narrow(float x, BFloat16Bits& out) {
  const uint32_t bits = std::bit_cast<uint32_t>(x);
  const uint32_t to_nearest_even = bits + 0x7FFFu + ((bits >> 16) & 1u);
  out = static_cast<uint16_t>((x != x ? bits | 0x00400000u : to_nearest_even) >> 16);
}

// q = p - 1, also as q_high + q_low; the product of q_high, of 14 bits, with an exponent is exact.
// Below smallest_exponent, which only subnormal numbers can be, g |g|^q rounds to zero.
struct Power {
  float q, q_high, q_low, smallest_exponent, floor;

  Power(double p, double floor) : q(static_cast<float>(p - 1)), floor(static_cast<float>(floor)) {
    int exponent = 0;
    const double mantissa = std::frexp(p - 1, &exponent);
    q_high = static_cast<float>(std::ldexp(std::nearbyint(mantissa * 0x1p14), exponent - 14));
    q_low = static_cast<float>(p - 1 - q_high);
    smallest_exponent = q > 0 ? std::max(-151.0f, -124.0f / q) : -151.0f;
  }
};

// magnitude^q for p in [0.2, 1.98]: finite and not zero, also at zero and infinity.
//
// log2(1 + x) = x P(x) on [1/sqrt(2) - 1, sqrt(2) - 1], absolute error 3e-7; 2^r on [-1/2, 1/2],
// relative error 9e-8. Minimax fits (least squares with Lawson's weights).
INLINE float factor(float magnitude, const Power& power) {
  const bool subnormal = magnitude < 0x1p-126f;
  const int32_t bits = std::bit_cast<int32_t>(magnitude * (subnormal ? 0x1p24f : 1.0f));
  const int32_t whole = (bits - 0x3F3504F3) >> 23;  // the bits of sqrt(1/2)
  const float exponent = std::max(static_cast<float>(whole) - (subnormal ? 24.0f : 0.0f),
                                  power.smallest_exponent);
  const float x = std::bit_cast<float>(bits - (whole << 23)) - 1.0f;
  float log2 = 0.170634523f;
  log2 = log2 * x - 0.272698015f;
  log2 = log2 * x + 0.297262609f;
  log2 = log2 * x - 0.358961850f;
  log2 = log2 * x + 0.480465025f;
  log2 = log2 * x - 0.721375883f;
  log2 = log2 * x + 1.44269967f;
  log2 *= x;
  const float scaled = exponent * power.q_high + log2 * power.q;
  const float shifted = scaled + 0x1.8p23f;  // its low bits are the nearest integer
  const float nearest = shifted - 0x1.8p23f;
  const float r = exponent * power.q_high - nearest + log2 * power.q + exponent * power.q_low;
  float exp2 = 0.00132647273f;
  exp2 = exp2 * r + 0.00967151299f;
  exp2 = exp2 * r + 0.0555073358f;
  exp2 = exp2 * r + 0.240222424f;
  exp2 = exp2 * r + 0.693147004f;
  exp2 = exp2 * r + 1.0f;
  return std::bit_cast<float>(std::bit_cast<int32_t>(exp2) +
                              (std::bit_cast<int32_t>(shifted) << 23));
}

// sign(g) (|g| + floor)^p, with 0 for g = 0.
template <bool has_floor>
INLINE float signed_power(float g, const Power& power) {
  if constexpr (has_floor) {
    const float magnitude = std::fabs(g) + power.floor;
    const float powered = std::copysign(magnitude * factor(magnitude, power), g);
    return g == 0.0f ? g : powered;
  }
  return g * factor(std::fabs(g), power);
}

template <typename T>
struct Elements {
  T *parameter, *gradient, *exp_avg, *exp_avg_sq, *max_exp_avg_sq;
  int64_t count;
};

struct Update {
  float sign, decay, beta1_rest, beta2, beta2_rest, step_size, inverse_root_correction, eps;
};

// Arguments are copies, which no store to the tensors can change: the loop is vectorized.
template <typename T, bool has_floor, bool amsgrad>
INLINE void adamw_loop(const Elements<T> elements, const Power power, const Update u) {
  T* __restrict parameter = elements.parameter;
  const T* __restrict gradient = elements.gradient;
  T* __restrict exp_avg = elements.exp_avg;
  T* __restrict exp_avg_sq = elements.exp_avg_sq;
  T* __restrict max_exp_avg_sq = elements.max_exp_avg_sq;
  for (int64_t i = 0; i < elements.count; ++i) {
    const float g = signed_power<has_floor>(wide(gradient[i]), power) * u.sign;
    const float m = wide(exp_avg[i]) + u.beta1_rest * (g - wide(exp_avg[i]));
    const float v = u.beta2 * wide(exp_avg_sq[i]) + u.beta2_rest * g * g;
    narrow(m, exp_avg[i]);
    narrow(v, exp_avg_sq[i]);
    float largest = v;
    if constexpr (amsgrad) {
      const float before = wide(max_exp_avg_sq[i]);
      largest = before >= v ? before : v;
      narrow(largest, max_exp_avg_sq[i]);
    }
    const float denominator = std::sqrt(largest) * u.inverse_root_correction + u.eps;
    narrow(wide(parameter[i]) * u.decay - u.step_size * (m / denominator), parameter[i]);
  }
}

template <typename T>
INLINE void adamw_of(const Elements<T>& elements, const Power& power, const Update& update) {
  const bool amsgrad = elements.max_exp_avg_sq != nullptr;
  if (power.floor == 0.0f && !amsgrad) return adamw_loop<T, false, false>(elements, power, update);
  if (power.floor == 0.0f) return adamw_loop<T, false, true>(elements, power, update);
  if (!amsgrad) return adamw_loop<T, true, false>(elements, power, update);
  adamw_loop<T, true, true>(elements, power, update);
}

FOR_EACH_CPU void adamw(const Elements<float>& e, const Power& power, const Update& update) {
  adamw_of(e, power, update);
}

FOR_EACH_CPU void adamw(const Elements<BFloat16Bits>& e, const Power& power, const Update& update) {
  adamw_of(e, power, update);
}

template <typename T>
INLINE void power_of(T* __restrict gradient, const int64_t count, const Power power) {
  if (power.floor == 0.0f) {
    for (int64_t i = 0; i < count; ++i) {
      narrow(signed_power<false>(wide(gradient[i]), power), gradient[i]);
    }
  } else {
    for (int64_t i = 0; i < count; ++i) {
      narrow(signed_power<true>(wide(gradient[i]), power), gradient[i]);
    }
  }
}

FOR_EACH_CPU void raise(float* gradient, int64_t count, const Power& power) {
  power_of(gradient, count, power);
}

FOR_EACH_CPU void raise(BFloat16Bits* gradient, int64_t count, const Power& power) {
  power_of(gradient, count, power);
}

// Calls body(tensor, first element, count) for chunks of all tensors, on PyTorch's threads.
template <typename Body>
void in_chunks(at::TensorList tensors, const Body& body) {
  struct Chunk {
    size_t tensor;
    int64_t first, count;
  };
  std::vector<Chunk> chunks;
  int64_t elements = 0;
  for (size_t tensor = 0; tensor < tensors.size(); ++tensor) {
    const int64_t size = tensors[tensor].numel();
    elements += size;
    for (int64_t first = 0; first < size; first += kChunk) {
      chunks.push_back({tensor, first, std::min(kChunk, size - first)});
    }
  }
  const auto number = static_cast<int64_t>(chunks.size());
  at::parallel_for(0, number, elements < kWorthAThread ? number : 1, [&](int64_t a, int64_t b) {
    for (int64_t i = a; i < b; ++i) body(chunks[i].tensor, chunks[i].first, chunks[i].count);
  });
}

bool is_supported(const at::Tensor& tensor, at::ScalarType type) {
  return tensor.layout() == at::kStrided && tensor.is_cpu() && tensor.scalar_type() == type &&
         (type == at::kFloat || type == at::kBFloat16) && tensor.is_non_overlapping_and_dense();
}

bool are_alike(const at::Tensor& tensor, const at::Tensor& other, at::ScalarType type) {
  return is_supported(tensor, type) && tensor.sizes() == other.sizes() &&
         tensor.strides() == other.strides();
}

template <typename T>
T* data(at::TensorList tensors, size_t index, int64_t first) {
  return tensors.empty() ? nullptr : static_cast<T*>(tensors[index].data_ptr()) + first;
}

bool sign_power_(at::TensorList gradients, double p, double floor) {
  for (const at::Tensor& gradient : gradients) {
    if (!is_supported(gradient, gradients[0].scalar_type())) return false;
  }
  if (gradients.empty()) return true;
  const Power power(p, floor);
  const bool is_float = gradients[0].scalar_type() == at::kFloat;
  in_chunks(gradients, [&](size_t tensor, int64_t first, int64_t count) {
    if (is_float) {
      raise(data<float>(gradients, tensor, first), count, power);
    } else {
      raise(data<BFloat16Bits>(gradients, tensor, first), count, power);
    }
  });
  return true;
}

bool adamw_power_(at::TensorList parameters, at::TensorList gradients, at::TensorList exp_avgs,
                  at::TensorList exp_avg_sqs, at::TensorList max_exp_avg_sqs, at::TensorList steps,
                  double p, double floor, double lr, double beta1, double beta2,
                  double weight_decay, double eps, bool maximize) {
  if (parameters.empty()) return true;
  const at::ScalarType type = parameters[0].scalar_type();
  for (size_t i = 0; i < parameters.size(); ++i) {
    const at::Tensor& one = parameters[i];
    if (!is_supported(one, type) || !are_alike(gradients[i], one, type) ||
        !are_alike(exp_avgs[i], one, type) || !are_alike(exp_avg_sqs[i], one, type) ||
        (!max_exp_avg_sqs.empty() && !are_alike(max_exp_avg_sqs[i], one, type)) ||
        !is_supported(steps[i], at::kFloat)) {
      return false;
    }
  }
  const Power power(p, floor);
  std::vector<Update> updates;
  for (const at::Tensor& step : steps) {
    const double number = *step.data_ptr<float>() += 1;
    updates.push_back({
        maximize ? -1.0f : 1.0f,
        static_cast<float>(1 - lr * weight_decay),
        static_cast<float>(1 - beta1),
        static_cast<float>(beta2),
        static_cast<float>(1 - beta2),
        static_cast<float>(lr / (1 - std::pow(beta1, number))),
        static_cast<float>(1 / std::sqrt(1 - std::pow(beta2, number))),
        static_cast<float>(eps),
    });
  }
  const auto update_chunk = [&]<typename T>(size_t i, int64_t first, int64_t count, T) {
    const Elements<T> elements{data<T>(parameters, i, first), data<T>(gradients, i, first),
                               data<T>(exp_avgs, i, first),   data<T>(exp_avg_sqs, i, first),
                               data<T>(max_exp_avg_sqs, i, first), count};
    adamw(elements, power, updates[i]);
  };
  in_chunks(parameters, [&](size_t i, int64_t first, int64_t count) {
    if (type == at::kFloat) {
      update_chunk(i, first, count, float{});
    } else {
      update_chunk(i, first, count, BFloat16Bits{});
    }
  });
  return true;
}

}  // namespace

TORCH_LIBRARY(lightning_plugins, library) {
  library.def("sign_power_(Tensor(a!)[] gradients, float p, float floor) -> bool");
  library.def(
      "adamw_power_(Tensor(a!)[] parameters, Tensor[] gradients, Tensor(b!)[] exp_avgs, "
      "Tensor(c!)[] exp_avg_sqs, Tensor(d!)[] max_exp_avg_sqs, Tensor(e!)[] steps, float p, "
      "float floor, float lr, float beta1, float beta2, float weight_decay, float eps, "
      "bool maximize) -> bool");
}

TORCH_LIBRARY_IMPL(lightning_plugins, CPU, library) {
  library.impl("sign_power_", &sign_power_);
  library.impl("adamw_power_", &adamw_power_);
}
