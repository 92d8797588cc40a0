// SPDX-License-Identifier: Apache-2.0
#include <doctest/doctest.h>

#include <atomic>
#include <cmath>
#include <new>
#include <stdexcept>
#include <thread>

#include "base/battery.h"
#include "base/call_lock.h"
#include "base/check.h"
#include "base/cores.h"
#include "base/half.h"
#include "base/thread_pool.h"
#include "kernels/output_stage.h"
#include "network/planner.h"
#include "support.h"
#include "tensor/qparams.h"

namespace qpp {

TEST_CASE("every half survives the way through float") {
  for (std::uint32_t bits = 0; bits < 0x10000; ++bits) {
    const half value{static_cast<std::uint16_t>(bits)};
    const float wide = to_float(value);
    if (std::isnan(wide)) {
      CHECK(std::isnan(to_float(to_half(wide))));
    } else {
      REQUIRE(to_half(wide).bits == value.bits);
    }
  }
}

TEST_CASE("float to half rounds half to even, also into subnormals, and overflows to infinity") {
  CHECK(to_half(1.0F + 0x1p-11F).bits == 0x3c00);      // tie, down to even
  CHECK(to_half(1.0F + 3 * 0x1p-11F).bits == 0x3c02);  // tie, up to even
  CHECK(to_half(0x1p-25F).bits == 0);                  // tie between 0 and the smallest subnormal
  CHECK(to_half(0x1.8p-24F).bits == 2);                // tie between subnormals 1 and 2
  CHECK(to_half(65519.0F).bits == 0x7bff);
  CHECK(to_half(65520.0F).bits == 0x7c00);
  CHECK(to_half(-65520.0F).bits == 0xfc00);
}

TEST_CASE("the thread pool runs every index once and splits by count and threads only") {
  for (const int threads : {1, 2, 4}) {
    ThreadPool pool(threads);
    for (const std::int64_t count : {0, 1, 3, 1000}) {
      std::vector<std::atomic<int>> seen(static_cast<std::size_t>(count));
      pool.parallel_for(count, [&](std::int64_t begin, std::int64_t end, int thread) {
        CHECK(begin == count * thread / threads);
        for (std::int64_t i = begin; i < end; ++i) ++seen[static_cast<std::size_t>(i)];
      });
      for (const auto& times : seen) CHECK(times == 1);
    }
  }
}

TEST_CASE("the fastest cores are found by capacity, by frequency, or not at all") {
  const test::Folder cpus;
  const int capacities[] = {260, 260, 870, 870, 1024, 1024};
  CoreSet cores;
  for (int core = 0; core < 6; ++core) cores.set(static_cast<std::size_t>(core));
  const auto fastest = [&] { return fastest_cores(cores, cpus.path()).to_ulong(); };
  CHECK(fastest() == 0b111111);  // no files

  for (int core = 0; core < 6; ++core) {
    cpus.write("cpu" + std::to_string(core) + "/cpufreq/cpuinfo_max_freq",
               core < 3 ? "1800000" : "2600000");
  }
  CHECK(fastest() == 0b111000);
  for (int core = 0; core < 6; ++core)
    cpus.write("cpu" + std::to_string(core) + "/cpu_capacity", std::to_string(capacities[core]));
  CHECK(fastest() == 0b110000);
  cores.reset(4).reset(5);  // not allowed to this process
  CHECK(fastest() == 0b001100);
  cpus.write("cpu2/cpu_capacity", "");  // unreadable: frequency decides
  CHECK(fastest() == 0b001000);
}

TEST_CASE("a core guard keeps the thread on its cores and restores them") {
  const CoreSet before = allowed_cores();
  REQUIRE(before.any());
  CoreSet one;
  for (std::size_t core = 0; core < before.size() && one.none(); ++core) one[core] = before[core];
  {
    const CoreGuard guard(one);
    CHECK(allowed_cores() == one);
    const CoreGuard free(CoreSet{});
    CHECK(allowed_cores() == one);
  }
  CHECK(allowed_cores() == before);
  ThreadPool pool(3, one);
  pool.parallel_for(3, [&](std::int64_t, std::int64_t, int thread) {
    CHECK(allowed_cores() == (thread == 0 ? before : one));
  });
}

TEST_CASE("a battery meter integrates current and power over time") {
  const test::Folder supplies;
  CHECK_THROWS_WITH_AS(BatteryMeter(supplies.path()), doctest::Contains("found none"),
                       UnsupportedError);
  supplies.write("ac/type", "Mains");
  supplies.write("ac/current_now", "1");
  supplies.write("ac/voltage_now", "1");
  CHECK_THROWS_AS(BatteryMeter(supplies.path()), UnsupportedError);
  supplies.write("battery/type", "Battery");
  supplies.write("battery/current_now", "-500000");  // 0.5 A
  supplies.write("battery/voltage_now", "4000000");  // 4 V
  supplies.write("battery/status", "Charging");
  CHECK_THROWS_WITH_AS(BatteryMeter(supplies.path()), doctest::Contains("unplug the charger"),
                       UnsupportedError);
  supplies.write("battery/status", "Discharging");

  BatteryMeter meter(supplies.path());
  meter.sample(100);
  CHECK(meter.joules() == 0);
  meter.sample(110);
  CHECK(meter.joules() == doctest::Approx(20));
  CHECK(meter.milliampere_hours() == doctest::Approx(5 / 3.6));
  supplies.write("battery/current_now", "1500000");
  meter.sample(114);  // from 0.5 to 1.5 A in 4 s
  CHECK(meter.joules() == doctest::Approx(20 + 16));
  CHECK(meter.milliampere_hours() == doctest::Approx(9 / 3.6));
  CHECK(meter.seconds() == doctest::Approx(14));
  CHECK(meter.samples() == 3);
  supplies.write("battery/current_now", "");
  CHECK_THROWS_WITH_AS(meter.sample(115), doctest::Contains("cannot read"), UnsupportedError);
}

TEST_CASE("the thread pool hands on an exception and stays usable") {
  ThreadPool pool(3);
  const auto fail = [](std::int64_t, std::int64_t, int thread) {
    if (thread == 1) throw std::runtime_error("part failed");
  };
  CHECK_THROWS_WITH(pool.parallel_for(9, fail), "part failed");
  std::atomic<std::int64_t> sum{0};
  pool.parallel_for(9, [&](std::int64_t begin, std::int64_t end, int) { sum += end - begin; });
  CHECK(sum == 9);
}

TEST_CASE("threads that cannot be started are reported, and those that were are joined") {
  for (const int threads : {-1, 0, 257, 1000000000}) {
    CHECK_THROWS_WITH_AS(ThreadPool{threads}, doctest::Contains("expected 1 to 256"), Error);
  }
  // Each thread takes one allocation at least, so that one of them fails for every index.
  bool done = false;
  int partly = 0;
  for (std::int64_t index = 0; !done; ++index) {
    try {
      test::fail_allocation(index);
      const ThreadPool pool(4);
      done = true;
    } catch (const Error& error) {
      ++partly;
      CHECK(std::string(error.what()).starts_with("threads: expected 4, the system started "));
    } catch (const std::bad_alloc&) {
      done = false;  // the pool itself
    }
    test::fail_allocation(-1);
  }
  CHECK(partly >= 3);
}

TEST_CASE("a call lock refuses a second call of its thread, and waits with interruptions") {
  CallLock lock;
  std::atomic<bool> held = false;
  std::atomic<bool> release = false;
  std::thread other([&] {
    const CallLock::Guard guard = lock.acquire();
    CHECK_THROWS_WITH_AS(static_cast<void>(lock.acquire()),
                         doctest::Contains("from within another call"), Error);
    held = true;
    while (!release) std::this_thread::yield();
  });
  while (!held) std::this_thread::yield();
  const auto interrupt = [] { throw std::runtime_error("interrupted"); };
  CHECK_THROWS_WITH(static_cast<void>(lock.acquire(interrupt)), "interrupted");
  release = true;
  other.join();
  const CallLock::Guard guard = lock.acquire(interrupt);  // free: no need to ask
}

TEST_CASE("qparams cover their bounds and give zero an exact level") {
  test::Random random(1);
  for (int i = 0; i < 1000; ++i) {
    const float a = random.next() * 5;
    const float b = random.next() * 5;
    for (const int bits : {2, 4, 8}) {
      const QParams row = choose_qparams(std::min(a, b), std::max(a, b), bits);
      CHECK(row.zero_point >= row.qmin);
      CHECK(row.zero_point <= row.qmax);
      CHECK(row.qmax - row.qmin == (1 << bits) - 1);
      // Its inverse is a half but for the exponent, at the price of a thousandth.
      CHECK(std::fmod(std::ldexp(row.inverse_scale, 10 - std::ilogb(row.inverse_scale)), 1.0F) ==
            0);
      const float least = (row.hi - row.lo) / static_cast<float>((1 << bits) - 1);
      CHECK(row.scale >= least * 0.999999F);
      CHECK(row.scale <= least * 1.001F);
      // Both ends are within half a step of the ends of the grid.
      CHECK(static_cast<float>(row.qmin - row.zero_point) * row.scale <=
            row.lo + 0.501F * row.scale);
      CHECK(static_cast<float>(row.qmax - row.zero_point) * row.scale >=
            row.hi - 0.501F * row.scale);
    }
  }
}

TEST_CASE("qparams of an empty range are usable") {
  const QParams row = choose_qparams(0, 0, 8);
  CHECK(row.scale > 0);
  CHECK(std::isfinite(row.inverse_scale));
}

TEST_CASE("tanh is close to the true one and passes NaN on") {
  float worst = 0;
  for (int i = -12000; i < 12000; ++i) {
    const float x = static_cast<float>(i) * 0.001F;
    const double expected = std::tanh(static_cast<double>(x));
    const double error = std::abs(static_cast<double>(tanh_shared(x)) - expected);
    worst = std::max(worst, static_cast<float>(error / std::max(std::abs(expected), 1e-30)));
  }
  CHECK(worst < 5e-7F);
  CHECK(tanh_shared(1e-6F) == doctest::Approx(1e-6F));
  CHECK(tanh_shared(INFINITY) == 1.0F);
  CHECK(tanh_shared(-INFINITY) == -1.0F);
  CHECK(std::isnan(tanh_shared(NAN)));
}

TEST_CASE("rounding to int8 is half to even before the zero point") {
  CHECK(round_to_int8(0.5F, 0) == 0);
  CHECK(round_to_int8(1.5F, 0) == 2);
  CHECK(round_to_int8(-0.5F, 3) == 3);
  CHECK(round_to_int8(2.5F, 1) == 3);
  CHECK(round_to_int8(255.0F, -128) == 127);
}

TEST_CASE("a range keeps NaN once it has met one") {
  for (const bool first : {true, false}) {
    Range range;
    extend_range(range, first ? NAN : 1.0F);
    extend_range(range, first ? 1.0F : NAN);
    extend_range(range, 2.0F);
    CHECK(std::isnan(range.lo));
    CHECK(std::isnan(range.hi));
  }
}

TEST_CASE("blocks that live together never overlap, and a chain needs only its largest pair") {
  const std::vector<Lifetime> chain = {{1024, 0, 1}, {4096, 1, 2}, {2048, 2, 3}, {1024, 3, 4}};
  CHECK(plan_memory(chain).bytes == 4096 + 2048);
  CHECK(peak_bytes(chain) == 4096 + 2048);

  for (const int count : {200, 6000}) {  // many are planned in another way
    CAPTURE(count);
    test::Random random(3);
    std::vector<Lifetime> blocks(17, {.bytes = 0, .first = 0, .last = 100});
    for (int i = 0; i < count; ++i) {
      const int first = static_cast<int>((random.next() + 1) * static_cast<float>(count) / 4);
      const int last = first + static_cast<int>((random.next() + 1) * 10);
      blocks.push_back({static_cast<std::size_t>((random.next() + 1) * 5000), first, last});
    }
    const MemoryPlan plan = plan_memory(blocks);
    CHECK(plan.bytes >= peak_bytes(blocks));
    const double share = count < 1000 ? 1.15 : 1.5;
    CHECK(static_cast<double>(plan.bytes) < share * static_cast<double>(peak_bytes(blocks)));
    int overlaps = 0;
    for (std::size_t a = 0; a < blocks.size(); ++a) {
      CHECK(plan.offsets[a] % kAlignment == 0);
      CHECK(plan.offsets[a] + blocks[a].bytes <= plan.bytes);
      for (std::size_t b = 0; b < a; ++b) {
        const bool together =
            blocks[a].first <= blocks[b].last && blocks[b].first <= blocks[a].last;
        const bool apart = blocks[a].bytes == 0 || blocks[b].bytes == 0 ||
                           plan.offsets[a] + blocks[a].bytes <= plan.offsets[b] ||
                           plan.offsets[b] + blocks[b].bytes <= plan.offsets[a];
        if (together && !apart) ++overlaps;
      }
    }
    CHECK(overlaps == 0);
  }
}

}  // namespace qpp
