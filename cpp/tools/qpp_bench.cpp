// SPDX-License-Identifier: Apache-2.0
//
// The native bench, for a phone, a board or an instrument: one warm-up, then exactly --iters runs
// of the code that the network runs (padding, epilogue and fused quantize included).

#include <algorithm>
#include <array>
#include <charconv>
#include <chrono>
#include <cstring>
#include <fstream>
#include <functional>
#include <iostream>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "base/battery.h"
#include "base/cpu.h"
#include "network/qp_table.h"
#include "network/session.h"
#include "ops/concat.h"
#include "ops/elementwise.h"
#include "ops/pixel_shuffle.h"
#include "ops/pool.h"
#include "ops/quantize.h"
#include "ops/resize.h"

namespace {

using nlohmann::ordered_json;

constexpr const char* kUsage =
    R"(usage: qpp_bench conv --dtype fp16|int8|ds --size HxWxC --filters F [--kernel 3] [--stride 1]
                      [--algorithm auto|direct|winograd] [--out int8|ds|fp16] [--residual int8|fp16] [--range]
                      [--density 0.01] --iters N [--threads 1] [--json]
       qpp_bench depthwise --dtype fp16|int8 --size HxWxC [--kernel 3] [--stride 1] [--out int8|fp16]
                      --iters N [--threads 1] [--json]
       qpp_bench linear --dtype fp16|int8 --size HxWxC --filters F [--out int8|fp16] --iters N [--threads 1]
                      [--json]
       qpp_bench concat --dtype fp16|int8 --size HxW --channels C+C[+C...] [--out int8|fp16] --iters N
                      [--threads 1] [--json]
       qpp_bench resize --dtype fp16|int8 --size HxWxC [--scale 2] --iters N [--threads 1] [--json]
       qpp_bench pixel_shuffle --size HxWxC [--scale 2] [--out fp32] --iters N [--threads 1] [--json]
       qpp_bench add|mul|max_pool|avg_pool|global_avg_pool --dtype fp16|int8 --size HxWxC
                      [--out int8|fp16] [--kernel 3] [--stride 2] --iters N [--threads 1] [--json]
       qpp_bench quantize|minmax|quantile|predict --size HxWxC [--alpha 0.9997] --iters N [--threads 1] [--json]
       qpp_bench model FILE --scheme fp16|static|dynamic|qpp [--size HxW] [--algorithm auto|direct|winograd]
                      [--activation-bits 8] [--skip int8|fp16] [--density 0.01] --iters N [--threads 1] [--cores all|big] [--profile] [--trace FILE]
                      [--json]

All commands take --energy [--power-supply /sys/class/power_supply].
Runs the work once to warm up, then N times. Wall-clock milliseconds are printed on real hardware only.
"macs" counts multiply-accumulates of a run, "elements" those of the output (of a global pool and of
statistics: those of the input), and "bytes" what a run must read and write at least: sources, weights and
result without padding. linear reads weights that no cache holds any more, as in a network.
--out fp32 is what a network returns, NCHW.
ds is dense + sparse: int8 with a list of outliers, a share --density of the elements.
--size of a model sets the dimensions that the file leaves open; --profile adds its steps, and --trace writes
them for chrome://tracing. --energy tells what a discharging battery gave meanwhile: let it run for minutes.
)";

#ifdef __clang__
constexpr const char* kCompiler = "Clang " __clang_version__;
#else
constexpr const char* kCompiler = "GCC " __VERSION__;
#endif

/// A wrong command line, or a request that this version cannot serve; ends the program with
/// status 2.
class UsageError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

class Options {
 public:
  Options(int argc, char** argv) {
    for (int i = 0; i < argc; ++i) {
      const std::string argument = argv[i];
      if (!argument.starts_with("--")) {
        positional.push_back(argument);
      } else if (argument == "--json" || argument == "--profile" || argument == "--range" ||
                 argument == "--energy" || argument == "--help") {
        values_[argument] = "";
      } else if (i + 1 < argc) {
        values_[argument] = argv[++i];
      } else {
        throw UsageError(argument + ": a value is missing");
      }
    }
  }

  /// Refuses options outside `known`, and those that are understood but not available.
  void only(const std::vector<std::string>& known) const {
    for (const auto& [name, value] : values_) {
      if (name == "--energy" || name == "--power-supply") continue;
      if (std::find(known.begin(), known.end(), name) == known.end())
        throw UsageError(name + ": unknown option");
    }
  }
  [[nodiscard]] bool has(const std::string& name) const { return values_.contains(name); }
  [[nodiscard]] std::string text(const std::string& name) const {
    const auto found = values_.find(name);
    if (found == values_.end()) throw UsageError(name + " is missing");
    return found->second;
  }
  [[nodiscard]] std::string text(const std::string& name, const std::string& otherwise) const {
    return has(name) ? text(name) : otherwise;
  }
  [[nodiscard]] std::int64_t integer(const std::string& name) const {
    return parse_integer(name, text(name));
  }
  [[nodiscard]] std::int64_t integer(const std::string& name, std::int64_t otherwise) const {
    return has(name) ? integer(name) : otherwise;
  }
  [[nodiscard]] double number(const std::string& name, double otherwise) const {
    if (!has(name)) return otherwise;
    const std::string value = text(name);
    char* end = nullptr;
    const double number = std::strtod(value.c_str(), &end);
    if (value.empty() || *end != '\0') throw UsageError(name + ": expected a number, got " + value);
    return number;
  }
  /// "18+36+72" as three numbers.
  [[nodiscard]] std::vector<std::int64_t> list(const std::string& name, char separator) const {
    std::vector<std::int64_t> result;
    std::istringstream stream(text(name));
    for (std::string part; std::getline(stream, part, separator);)
      result.push_back(parse_integer(name, part));
    return result;
  }
  /// "56x56x64" as three numbers.
  [[nodiscard]] std::vector<std::int64_t> sizes(const std::string& name, std::size_t count) const {
    std::vector<std::int64_t> result = list(name, 'x');
    if (result.size() != count)
      throw UsageError(name + ": expected " + std::to_string(count) + " sizes joined by x");
    return result;
  }

  std::vector<std::string> positional;

 private:
  static std::int64_t parse_integer(const std::string& name, const std::string& value) {
    std::int64_t result = 0;
    const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), result);
    if (error != std::errc() || end != value.data() + value.size() || result < 1 ||
        result > 1'000'000) {
      throw UsageError(name + ": expected a whole number from 1 to 1000000, got " + value);
    }
    return result;
  }

  std::map<std::string, std::string> values_;
};

/// Deterministic test data, the same on every machine.
class Random {
 public:
  /// Uniform over [-1, 1).
  float next() {
    state_ = state_ * 6364136223846793005U + 1442695040888963407U;
    return static_cast<float>(static_cast<std::int32_t>(state_ >> 32)) * 0x1p-31F;
  }

 private:
  std::uint64_t state_ = 1;
};

/// The remainders of all bytes.
constexpr std::array<std::uint32_t, 256> crc32_table() {
  std::array<std::uint32_t, 256> table{};
  for (std::uint32_t byte = 0; byte < table.size(); ++byte) {
    std::uint32_t crc = byte;
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ ((crc & 1U) != 0 ? 0xedb88320U : 0U);
    table[byte] = crc;
  }
  return table;
}

std::uint32_t crc32(std::span<const std::byte> bytes) {
  static constexpr std::array<std::uint32_t, 256> kTable = crc32_table();
  std::uint32_t crc = ~0U;
  for (const std::byte byte : bytes)
    crc = (crc >> 8) ^ kTable[(crc ^ static_cast<std::uint32_t>(byte)) & 0xffU];
  return ~crc;
}

std::string hexadecimal(std::uint32_t value) {
  std::ostringstream stream;
  stream << std::hex << value;
  return stream.str();
}

double seconds_now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

/// The median of some times, which it sorts.
double median(std::vector<double>& times) {
  std::sort(times.begin(), times.end());
  return times[times.size() / 2];
}

/// Runs `work` once, then as often as --iters says, and adds the times to the report where they
/// mean something, and the energy where --energy asks for it.
void measure(const Options& options, const std::function<void()>& work, ordered_json& report) {
  std::optional<qpp::BatteryMeter> meter;
  if (options.has("--energy"))
    meter.emplace(options.text("--power-supply", "/sys/class/power_supply"));
  work();
  std::vector<double> milliseconds(static_cast<std::size_t>(options.integer("--iters")));
  if (meter) meter->sample(seconds_now());
  double next_sample = 0;
  for (double& elapsed : milliseconds) {
    const double start = seconds_now();
    work();
    const double end = seconds_now();
    elapsed = (end - start) * 1e3;
    constexpr double kSampleSeconds = 0.1;  // drivers renew their numbers more rarely
    if (meter && end > next_sample) {
      meter->sample(end);
      next_sample = end + kSampleSeconds;
    }
  }
  report["iters"] = milliseconds.size();
  if (qpp::is_emulated()) {
    report["ms_min"] = nullptr;
    report["ms_median"] = nullptr;
  } else {
    report["ms_median"] = median(milliseconds);
    report["ms_min"] = milliseconds.front();
  }
  if (!meter) return;
  meter->sample(seconds_now());
  report["energy"] = {{"mah", meter->milliampere_hours()},
                      {"joules", meter->joules()},
                      {"seconds", meter->seconds()},
                      {"samples", meter->samples()}};
}

/// One operation with its tensors, outside a network.
class OpBench {
 public:
  OpBench(const std::vector<qpp::Shape>& shapes, qpp::DType src, qpp::DType dst, int threads,
          std::size_t rows)
      : shapes_(shapes), dst_(dst), pool_(threads), table_(rows, 1) {
    Random random;
    for (qpp::QParams& row : table_.qparams) row = qpp::choose_qparams(-1.0F, 1.0F, 8);
    for (const qpp::Shape& shape : shapes_) add_input(shape, src, random);
  }

  enum class Order : std::uint8_t { together, in_turn };

  /// A run executes all operations, or one after the other in turn.
  void run(const std::vector<qpp::Op*>& ops, const Options& options, ordered_json& report,
           Order order = Order::together) {
    struct Ready {
      qpp::Op* op;
      qpp::AlignedVector<std::byte> scratch;
    };
    std::vector<Ready> ready;
    qpp::Shape output;
    for (qpp::Op* op : ops) {
      output = op->prepare(shapes_, pool_.threads());
      ready.push_back({op, qpp::AlignedVector<std::byte>(op->scratch_bytes())});
      if (!op->kernel().empty()) report["kernel"] = op->kernel();
    }
    output_.resize(static_cast<std::size_t>(output.elements()) * qpp::size_of(dst_));
    qpp::TensorView view{.data = output_.data(), .dtype = dst_, .shape = output};
    if (sparse_dst_) {
      outliers_.emplace_back(qpp::outlier_bytes(output));
      view.outliers = qpp::outliers_of(output, outliers_.back().data());
    }
    float* exported = dst_ == qpp::DType::f32 ? view.as<float>() : nullptr;
    std::size_t bytes = report.value("bytes", std::size_t{0}) + bytes_of(output, dst_);
    for (const qpp::TensorView& input : inputs_) bytes += bytes_of(input.shape, input.dtype);
    report["bytes"] = bytes;
    qpp::RunState state = table_.state(pool_);
    const auto execute = [&](Ready& step) {
      step.op->run(
          {.inputs = inputs_, .output = view, .scratch = step.scratch.data(), .exported = exported},
          state);
    };
    std::size_t turn = 0;
    const auto next = [&] { execute(ready[turn++ % ready.size()]); };
    const auto all = [&] {
      for (Ready& step : ready) execute(step);
    };
    measure(options, order == Order::in_turn ? std::function<void()>(next) : all, report);
    if (!output_.empty()) report["crc32"] = hexadecimal(crc32(output_));
    if (!sparse_dst_) return;
    double outliers = 0;
    for (std::int64_t row = 0; row < output.batch * output.height; ++row) {
      outliers += view.outliers.row(row).begins[output.width];
    }
    report["output_density"] = outliers / static_cast<double>(output.pixels() * output.channels);
  }

  /// The inputs become dense + sparse: this share of their elements gets a residual.
  void add_outliers(double density) {
    Random random;
    for (qpp::TensorView& input : inputs_) {
      const qpp::Shape& shape = input.shape;
      outliers_.emplace_back(qpp::outlier_bytes(shape));
      input.outliers = qpp::outliers_of(shape, outliers_.back().data());
      for (std::int64_t p = 0; p < shape.pixels(); ++p) {
        qpp::OutlierAppender appender(input.outliers.row(p / shape.width), p % shape.width);
        for (std::int64_t c = 0; c < shape.channels; ++c) {
          const float chance = (random.next() + 1) / 2;
          if (chance >= static_cast<float>(density)) continue;
          input.as<std::int8_t>()[p * shape.stride() + c] = 127;
          appender.append(p % shape.width * shape.stride() + c,
                          1 + static_cast<std::int32_t>(63 * (random.next() + 1)));
        }
        appender.end_pixel(p % shape.width);
      }
    }
  }
  void make_output_sparse() { sparse_dst_ = true; }
  void add_residual(const qpp::Shape& shape, qpp::DType dtype) {
    Random random;
    shapes_.push_back(shape);
    add_input(shape, dtype, random);
  }

  /// The value that a share of the elements lies above which an operation makes of the inputs, in
  /// fp16.
  float largest_but(double share, qpp::Op& op) {
    const qpp::Shape shape = op.prepare(shapes_, pool_.threads());
    qpp::AlignedVector<std::byte> scratch(op.scratch_bytes());
    std::vector<qpp::half> halves(static_cast<std::size_t>(shape.elements()));
    qpp::RunState state = table_.state(pool_);
    op.run({.inputs = inputs_,
            .output = {.data = halves.data(), .dtype = qpp::DType::f16, .shape = shape},
            .scratch = scratch.data()},
           state);
    std::vector<float> values(halves.size());
    std::transform(halves.begin(), halves.end(), values.begin(), qpp::to_float);
    const auto rank = static_cast<std::ptrdiff_t>((1 - share) * static_cast<double>(values.size()));
    std::nth_element(values.begin(), values.begin() + rank, values.end());
    return values[static_cast<std::size_t>(rank)];
  }

  [[nodiscard]] qpp::QpTable& table() { return table_; }

 private:
  /// Without the padding of channels.
  static std::size_t bytes_of(const qpp::Shape& shape, qpp::DType dtype) {
    return static_cast<std::size_t>(shape.pixels() * shape.channels) * qpp::size_of(dtype);
  }

  void add_input(const qpp::Shape& shape, qpp::DType src, Random& random) {
    auto& input = data_.emplace_back();
    input.resize(static_cast<std::size_t>(shape.elements()) * qpp::size_of(src));
    for (std::int64_t p = 0; p < shape.pixels(); ++p) {
      for (std::int64_t c = 0; c < shape.channels; ++c) {
        const std::int64_t i = p * shape.stride() + c;
        const float value = random.next();
        if (src == qpp::DType::f16) {
          reinterpret_cast<qpp::half*>(input.data())[i] = qpp::to_half(value);
        } else {
          input[static_cast<std::size_t>(i)] =
              static_cast<std::byte>(static_cast<std::int8_t>(value * 127.0F));
        }
      }
    }
    inputs_.push_back({.data = input.data(), .dtype = src, .shape = shape});
  }

  std::vector<qpp::Shape> shapes_;
  qpp::DType dst_;
  bool sparse_dst_ = false;
  qpp::ThreadPool pool_;
  qpp::QpTable table_;
  std::vector<qpp::AlignedVector<std::byte>> data_;
  std::vector<qpp::AlignedVector<std::byte>> outliers_;
  std::vector<qpp::TensorView> inputs_;
  qpp::AlignedVector<std::byte> output_;
};

qpp::Shape image(const std::vector<std::int64_t>& sizes) {
  return {.batch = 1, .height = sizes[0], .width = sizes[1], .channels = sizes[2]};
}

qpp::DType parse_dtype(const std::string& option, const std::string& name) {
  if (name == "fp16") return qpp::DType::f16;
  if (name == "int8" || name == "ds") return qpp::DType::qai8;
  throw UsageError(option + ": expected fp16 or int8, got " + name);
}

/// Convolutions of all kinds.
void bench_conv(const Options& options, ordered_json& report) {
  options.only({"--dtype", "--size", "--filters", "--kernel", "--stride", "--algorithm", "--out",
                "--residual", "--range", "--density", "--iters", "--threads", "--json"});
  const bool linear = options.positional[0] == "linear";
  const qpp::Algorithm algorithm = qpp::parse_algorithm(options.text("--algorithm", "auto"));
  const qpp::DType src = parse_dtype("--dtype", options.text("--dtype"));
  const qpp::DType dst = parse_dtype("--out", options.text("--out", options.text("--dtype")));
  const qpp::Shape shape = image(options.sizes("--size", 3));
  const std::int64_t kernel = options.integer("--kernel", linear ? 1 : 3);
  const std::int64_t stride = options.integer("--stride", 1);

  Random random;
  qpp::Conv2dSpec spec;
  spec.name = "conv";
  spec.channels = shape.channels;
  if (options.positional[0] == "depthwise") {
    spec.filters = spec.groups = shape.channels;
    spec.channels = 1;
  } else {
    spec.filters = options.integer("--filters");
  }
  spec.kernel = {.height = kernel, .width = kernel};
  spec.stride = {.height = stride, .width = stride};
  spec.padding = {.height = kernel / 2, .width = kernel / 2};
  spec.activation.lo = 0;  // ReLU
  spec.weights.resize(static_cast<std::size_t>(spec.filters * spec.channels * kernel * kernel));
  for (float& weight : spec.weights) weight = random.next() * 0.05F;
  spec.bias.resize(static_cast<std::size_t>(spec.filters));
  for (float& bias : spec.bias) bias = random.next();

  const bool sparse_src = options.text("--dtype") == "ds";
  const bool sparse_dst = options.text("--out", options.text("--dtype")) == "ds";
  if ((sparse_src || sparse_dst) && options.positional[0] != "conv") {
    throw UsageError("--dtype ds: only for conv");
  }
  const double density = options.number("--density", 0.01);
  if (density <= 0 || density > qpp::kLargestDensity) {
    throw UsageError("--density: expected a number above 0 and up to 0.1");
  }
  const bool range = options.has("--range");
  if (range && dst != qpp::DType::f16) throw UsageError("--range: only where --out is fp16");
  qpp::Conv2dTypes types{.src = src,
                         .dst = dst,
                         .sparse_src = sparse_src,
                         .sparse_dst = sparse_dst,
                         .src_row = 0,
                         .dst_row = 1,
                         .range_row = range ? 1 : -1};
  if (options.has("--residual")) {
    if (options.positional[0] == "depthwise") throw UsageError("--residual: not for depthwise");
    types.residual = parse_dtype("--residual", options.text("--residual"));
    types.residual_row = 0;
  }
  constexpr std::size_t kMoreThanCaches = 8 << 20;
  const std::size_t weight_bytes = spec.weights.size() * qpp::size_of(src);
  const std::size_t copies = linear ? kMoreThanCaches / weight_bytes + 1 : 1;
  std::vector<std::unique_ptr<qpp::Op>> convs;
  std::vector<qpp::Op*> pointers;
  for (std::size_t i = 0; i < copies; ++i) {
    convs.push_back(
        qpp::make_conv2d(spec, types, algorithm, qpp::KernelSelection::from_environment()));
    pointers.push_back(convs.back().get());
  }
  const qpp::Shape output = pointers[0]->prepare(std::span(&shape, 1), 1);
  report["macs"] = output.pixels() * spec.filters * spec.channels * kernel * kernel;
  report["bytes"] = weight_bytes;
  OpBench bench({shape}, src, dst, static_cast<int>(options.integer("--threads", 1)), 2);
  bench.table().qparams[1] = qpp::choose_qparams(0, 1, 8);  // what lies behind the ReLU
  if (sparse_src) bench.add_outliers(density);
  if (types.residual) bench.add_residual(output, *types.residual);
  if (sparse_dst) {
    bench.make_output_sparse();
    qpp::Conv2dTypes fp16 = types;
    fp16.dst = qpp::DType::f16;
    fp16.sparse_dst = false;
    const auto conv = qpp::make_conv2d(spec, fp16, qpp::Algorithm::direct,
                                       qpp::KernelSelection::from_environment());
    bench.table().qparams[1] = qpp::choose_qparams(0, bench.largest_but(density, *conv), 8);
  }
  bench.run(pointers, options, report, OpBench::Order::in_turn);
}

/// Row of an int8 tensor: 0 of sources, 1 of results.
int row_of(qpp::DType dtype, int row) { return dtype == qpp::DType::qai8 ? row : -1; }

void bench_binary(const Options& options, ordered_json& report) {
  options.only({"--dtype", "--size", "--out", "--iters", "--threads", "--json"});
  const qpp::DType src = parse_dtype("--dtype", options.text("--dtype"));
  const qpp::DType dst = parse_dtype("--out", options.text("--out", options.text("--dtype")));
  const qpp::Shape shape = image(options.sizes("--size", 3));
  qpp::BinarySpec spec;
  spec.name = options.positional[0];
  spec.kind = spec.name == "mul" ? qpp::BinaryKind::mul : qpp::BinaryKind::add;
  spec.activation.lo = 0;  // ReLU
  qpp::Binary op(spec,
                 {.src = src,
                  .dst = dst,
                  .a_row = row_of(src, 0),
                  .b_row = row_of(src, 0),
                  .dst_row = row_of(dst, 1)},
                 qpp::KernelSelection::from_environment());
  report["elements"] = shape.pixels() * shape.channels;
  OpBench bench({shape, shape}, src, dst, static_cast<int>(options.integer("--threads", 1)), 2);
  bench.run({&op}, options, report);
}

/// Counts output elements, those of a global pool excepted: it reads far more than it writes.
void bench_pool(const Options& options, ordered_json& report) {
  options.only(
      {"--dtype", "--size", "--out", "--kernel", "--stride", "--iters", "--threads", "--json"});
  const qpp::DType src = parse_dtype("--dtype", options.text("--dtype"));
  const qpp::DType dst = parse_dtype("--out", options.text("--out", options.text("--dtype")));
  const qpp::Shape shape = image(options.sizes("--size", 3));
  const std::int64_t kernel = options.integer("--kernel", 3);
  const std::int64_t stride = options.integer("--stride", 2);
  qpp::PoolSpec spec;
  spec.name = options.positional[0];
  spec.kind = spec.name == "max_pool" ? qpp::PoolKind::max : qpp::PoolKind::average;
  const bool global = spec.name == "global_avg_pool";
  if (global) {
    spec.size = qpp::Size2d{};
  } else {
    spec.kernel = {.height = kernel, .width = kernel};
    spec.stride = {.height = stride, .width = stride};
    spec.padding = {.height = kernel / 2, .width = kernel / 2};
  }
  qpp::Pool op(spec, {.src = src, .dst = dst, .src_row = row_of(src, 0), .dst_row = row_of(dst, 1)},
               qpp::KernelSelection::from_environment());
  const qpp::Shape counted = global ? shape : op.prepare(std::span(&shape, 1), 1);
  report["elements"] = counted.pixels() * counted.channels;
  OpBench bench({shape}, src, dst, static_cast<int>(options.integer("--threads", 1)), 2);
  bench.run({&op}, options, report);
}

void bench_concat(const Options& options, ordered_json& report) {
  options.only({"--dtype", "--size", "--channels", "--out", "--iters", "--threads", "--json"});
  const qpp::DType src = parse_dtype("--dtype", options.text("--dtype"));
  const qpp::DType dst = parse_dtype("--out", options.text("--out", options.text("--dtype")));
  const std::vector<std::int64_t> size = options.sizes("--size", 2);
  std::vector<qpp::Shape> shapes;
  for (const std::int64_t channels : options.list("--channels", '+'))
    shapes.push_back(image({size[0], size[1], channels}));
  qpp::Concat op("concat",
                 {.src = src,
                  .dst = dst,
                  .src_rows = std::vector<int>(shapes.size(), 0),
                  .dst_row = row_of(dst, 1)},
                 qpp::KernelSelection::from_environment());
  const qpp::Shape output = op.prepare(shapes, 1);
  report["elements"] = output.pixels() * output.channels;
  OpBench bench(shapes, src, dst, static_cast<int>(options.integer("--threads", 1)), 2);
  bench.run({&op}, options, report);
}

/// Enlarging, by interpolation or by arranging channels.
void bench_enlargement(const Options& options, ordered_json& report) {
  const bool shuffle = options.positional[0] == "pixel_shuffle";
  std::vector<std::string> known = {"--dtype", "--size",    "--scale",
                                    "--iters", "--threads", "--json"};
  if (shuffle) known.emplace_back("--out");
  options.only(known);
  const qpp::DType dtype =
      parse_dtype("--dtype", shuffle ? options.text("--dtype", "fp16") : options.text("--dtype"));
  const bool exports = shuffle && options.text("--out", "") == "fp32";
  const qpp::DType dst =
      exports ? qpp::DType::f32
              : parse_dtype("--out", options.text("--out", options.text("--dtype", "fp16")));
  if (shuffle && dst != dtype && (!exports || dtype != qpp::DType::f16))
    throw UsageError("--out: expected the type of --dtype, or fp32 of fp16");
  const qpp::Shape shape = image(options.sizes("--size", 3));
  const std::int64_t scale = options.integer("--scale", 2);
  std::unique_ptr<qpp::Op> op;
  if (shuffle) {
    op = std::make_unique<qpp::PixelShuffle>("pixel_shuffle", scale, /*inverse=*/false, dtype);
  } else {
    qpp::ResizeSpec spec;
    spec.mode = qpp::ResizeMode::bilinear;
    spec.scale_height = spec.scale_width = static_cast<double>(scale);
    op = std::make_unique<qpp::Resize>(spec, dtype, qpp::KernelSelection::from_environment());
  }
  const qpp::Shape output = op->prepare(std::span(&shape, 1), 1);
  report["elements"] = output.pixels() * output.channels;
  OpBench bench({shape}, dtype, dst, static_cast<int>(options.integer("--threads", 1)), 2);
  bench.run({op.get()}, options, report);
}

/// The benches of a statistic or a pass over one tensor.
void bench_tensor(const Options& options, ordered_json& report) {
  options.only({"--size", "--alpha", "--iters", "--threads", "--json"});
  const std::string command = options.positional[0];
  const double alpha = options.number("--alpha", 0.9997);
  if (alpha <= 0.5 || alpha > 1)
    throw UsageError("--alpha: expected a number above 0.5 and up to 1");
  const qpp::Shape shape = image(options.sizes("--size", 3));
  const qpp::KernelSelection selection = qpp::KernelSelection::from_environment();
  constexpr std::size_t kTargets = 20;  // rows that `predict` writes, as many as ResNet18 needs
  report["elements"] = shape.pixels() * shape.channels;

  std::vector<std::unique_ptr<qpp::Op>> ops;
  if (command == "quantize") {
    ops.push_back(std::make_unique<qpp::Quantize>(0, selection));
  } else if (command == "minmax") {
    ops.push_back(std::make_unique<qpp::ChooseQParams>(
        qpp::ChooseQParams::Spec{.value = "x", .targets = {{.row = 0}}}, selection));
  } else if (command == "quantile") {
    // As in a network: the producer's epilogue has measured the range.
    ops.push_back(std::make_unique<qpp::ChooseQParams>(
        qpp::ChooseQParams::Spec{
            .value = "x", .targets = {{.row = 0, .alpha = alpha}}, .range_measured = true},
        selection));
  } else {
    ops.push_back(std::make_unique<qpp::MeasureFeatures>(
        qpp::MeasureFeatures::Spec{.value = "x", .position = 0, .alphas = {0.997, 0.999, 0.9998}},
        selection));
    std::vector<qpp::PredictQParams::Row> rows(kTargets);
    for (std::size_t i = 0; i < rows.size(); ++i) rows[i].row = static_cast<int>(i);
    ops.push_back(std::make_unique<qpp::PredictQParams>(0, rows, 8));
  }
  OpBench bench({shape}, qpp::DType::f16,
                command == "quantize" ? qpp::DType::qai8 : qpp::DType::f16,
                static_cast<int>(options.integer("--threads", 1)), kTargets);
  bench.table().ranges[0] = {.lo = -1, .hi = 1};
  std::vector<qpp::Op*> pointers;
  for (const auto& op : ops) pointers.push_back(op.get());
  bench.run(pointers, options, report);
}

/// The steps of a model with their times, medians of all runs but the first.
ordered_json profile_of(const std::vector<qpp::StepInfo>& steps,
                        const std::vector<std::vector<qpp::StepTime>>& runs) {
  ordered_json rows = ordered_json::array();
  for (std::size_t s = 0; s < steps.size(); ++s) {
    const qpp::StepInfo& step = steps[s];
    ordered_json row = {{"node", step.node},
                        {"op", step.op},
                        {"kernel", step.kernel},
                        {"dtype", step.dtype},
                        {"shape", step.shape.batch == 0 ? "" : qpp::to_string(step.shape)},
                        {"macs", step.macs},
                        {"bytes", step.bytes},
                        {"calls", runs.size() - 1},
                        {"ms_median", nullptr}};
    std::vector<double> milliseconds;
    for (std::size_t run = 1; run < runs.size(); ++run)
      milliseconds.push_back(static_cast<double>(runs[run][s].end - runs[run][s].begin) * 1e-6);
    if (!qpp::is_emulated()) row["ms_median"] = median(milliseconds);
    rows.push_back(std::move(row));
  }
  return rows;
}

/// The steps of all runs in the format of chrome://tracing and Perfetto.
void write_trace(const std::string& path, const std::vector<qpp::StepInfo>& steps,
                 const std::vector<std::vector<qpp::StepTime>>& runs) {
  ordered_json events = ordered_json::array();
  for (const auto& run : runs) {
    for (std::size_t s = 0; s < steps.size(); ++s) {
      events.push_back({{"name", steps[s].node},
                        {"cat", steps[s].op},
                        {"ph", "X"},
                        {"ts", static_cast<double>(run[s].begin - runs[0][0].begin) * 1e-3},
                        {"dur", static_cast<double>(run[s].end - run[s].begin) * 1e-3},
                        {"pid", 0},
                        {"tid", 0},
                        {"args", {{"kernel", steps[s].kernel}, {"macs", steps[s].macs}}}});
    }
  }
  std::ofstream file(path);
  file << ordered_json{{"traceEvents", std::move(events)}};
  if (!file.flush()) throw std::runtime_error("cannot write " + path);
}

void bench_model(const Options& options, ordered_json& report) {
  options.only({"--scheme", "--size", "--algorithm", "--activation-bits", "--iters", "--threads",
                "--cores", "--skip", "--density", "--profile", "--trace", "--json"});
  if (options.positional.size() != 2) throw UsageError("model: expected one FILE");
  if (options.has("--trace") && qpp::is_emulated())
    throw UsageError("--trace: the times of an emulator say nothing");
  qpp::SessionOptions session_options;
  session_options.scheme = options.text("--scheme");
  session_options.activation_bits = static_cast<int>(options.integer("--activation-bits", 8));
  session_options.threads = static_cast<int>(options.integer("--threads", 1));
  session_options.cores = options.text("--cores", "all");
  session_options.algorithm = options.text("--algorithm", "auto");
  if (options.has("--skip")) session_options.skip = options.text("--skip");
  if (options.has("--density")) session_options.density = options.number("--density", 0);
  qpp::Session session(qpp::load_model(options.positional[1]), session_options);

  const std::vector<std::int64_t> open =
      options.has("--size") ? options.sizes("--size", 2) : std::vector<std::int64_t>{64, 64};
  Random random;
  std::vector<std::vector<float>> data;
  std::vector<qpp::Session::Input> inputs;
  for (const qpp::Model::Input& input : session.inputs()) {
    const qpp::Shape shape{.batch = input.shape[0].value_or(1),
                           .height = input.shape[2].value_or(open[0]),
                           .width = input.shape[3].value_or(open[1]),
                           .channels = *input.shape[1]};
    std::vector<float>& values =
        data.emplace_back(static_cast<std::size_t>(shape.pixels() * shape.channels));
    for (float& value : values) value = (random.next() + 1.0F) / 2.0F;
    inputs.push_back({.data = values.data(), .shape = shape});
    report["input"] = qpp::to_string(shape);
  }
  std::vector<std::vector<float>> outputs(session.outputs().size());
  const auto place = [&outputs](std::size_t index, const qpp::Shape& shape) {
    outputs[index].resize(static_cast<std::size_t>(shape.pixels() * shape.channels));
    return outputs[index].data();
  };
  const bool profiles = options.has("--profile") || options.has("--trace");
  std::vector<std::vector<qpp::StepTime>> runs;
  measure(
      options, [&] { session.run(inputs, place, profiles ? &runs.emplace_back() : nullptr); },
      report);
  const qpp::SessionMemory memory = session.memory();
  report["weight_bytes"] = memory.weights;
  report["arena_bytes"] = memory.arena;
  report["peak_bytes"] = memory.peak;
  report["crc32"] = hexadecimal(crc32(std::as_bytes(std::span(outputs[0]))));
  if (options.has("--profile")) report["steps"] = profile_of(session.explain(), runs);
  if (options.has("--trace")) write_trace(options.text("--trace"), session.explain(), runs);
}

std::string text_of(const ordered_json& value) {
  if (value.is_null()) return "not measured (emulated)";
  return value.is_string() ? value.get<std::string>() : value.dump();
}

/// Objects with the same keys, as columns.
void print_table(const ordered_json& rows) {
  std::vector<std::vector<std::string>> lines(1);
  for (const auto& [key, value] : rows[0].items()) lines[0].push_back(key);
  for (const ordered_json& row : rows) {
    std::vector<std::string>& line = lines.emplace_back();
    for (const auto& [key, value] : row.items())
      line.push_back(value.is_null() ? "-" : text_of(value));
  }
  std::vector<std::size_t> widths(lines[0].size());
  for (const auto& line : lines) {
    for (std::size_t i = 0; i < line.size(); ++i) widths[i] = std::max(widths[i], line[i].size());
  }
  for (const auto& line : lines) {
    std::string text = " ";
    for (std::size_t i = 0; i < line.size(); ++i)
      text += " " + line[i] + std::string(widths[i] - line[i].size() + 1, ' ');
    std::cout << text.substr(0, text.find_last_not_of(' ') + 1) << '\n';
  }
}

void print(const ordered_json& report, bool as_json) {
  if (as_json) {
    std::cout << report.dump(1) << '\n';
    return;
  }
  for (const auto& [key, value] : report.items()) {
    std::cout << key << ':' << (value.is_array() ? "" : " " + text_of(value)) << '\n';
    if (value.is_array() && !value.empty()) print_table(value);
  }
}

int run(int argc, char** argv) {
  const Options options(argc - 1, argv + 1);
  static const std::map<std::string, void (*)(const Options&, ordered_json&)> kCommands = {
      {"conv", bench_conv},      {"depthwise", bench_conv},
      {"linear", bench_conv},    {"quantize", bench_tensor},
      {"minmax", bench_tensor},  {"quantile", bench_tensor},
      {"predict", bench_tensor}, {"model", bench_model},
      {"concat", bench_concat},  {"resize", bench_enlargement},
      {"add", bench_binary},     {"pixel_shuffle", bench_enlargement},
      {"mul", bench_binary},     {"max_pool", bench_pool},
      {"avg_pool", bench_pool},  {"global_avg_pool", bench_pool}};
  if (options.has("--help")) {
    std::cout << kUsage;
    return 0;
  }
  const auto command =
      options.positional.empty() ? kCommands.end() : kCommands.find(options.positional[0]);
  if (command == kCommands.end()) throw UsageError(std::string("expected a command\n") + kUsage);
  ordered_json report = {
      {"command", command->first}, {"version", QPP_VERSION}, {"compiler", kCompiler}};
  command->second(options, report);
  print(report, options.has("--json"));
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    return run(argc, argv);
  } catch (const UsageError& error) {
    std::cerr << "qpp_bench: " << error.what() << '\n';
    return 2;
  } catch (const std::exception& error) {
    std::cerr << "qpp_bench: " << error.what() << '\n';
    return 1;
  }
}
