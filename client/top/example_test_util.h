// A daemon with three VMs, for tests: one migrates, one is paused, one idles.

#ifndef CLIENT_TOP_EXAMPLE_TEST_UTIL_H_
#define CLIENT_TOP_EXAMPLE_TEST_UTIL_H_

#include <cstdint>

#include "absl/time/time.h"
#include "client/top/model.h"
#include "client/top/sample.h"
#include "mmu_core/base/clock.h"
#include "server/base/wall_time.h"

namespace mmud::client {

// 2026-12-04 12:00:00 UTC and `seconds` later.
inline WallTime ExampleTime(int64_t seconds) {
  return WallTime::FromUnixNanos((1'796'385'600 + seconds) * 1'000'000'000);
}

// The sample number `number`, one each two seconds.
inline TopSample ExampleSample(int64_t number) {
  TopSample sample;
  sample.time = mmu::MonotonicTime() + absl::Seconds(2 * number);
  sample.wall_time = ExampleTime(2 * number);
  sample.daemon = {.version = "0.1.0",
                   .uptime = absl::Minutes(5) + absl::Seconds(2 * number),
                   .boot_id = "example"};
  sample.call_count = 5;
  sample.call_time = absl::Microseconds(1300);

  VmSample alpha;
  alpha.id = "alpha";
  alpha.uid = "uid-alpha";
  alpha.mmu = "tdp";
  alpha.vcpu_count = 4;
  alpha.memory_size_bytes = int64_t{4} << 30;
  alpha.vcpu_state = "running";
  // Faster and faster: 1000, 3000, 5000 ... pages in two seconds.
  alpha.statistics = {{"dirty_pages", 1000 * number * number},
                      {"pf_taken", 600 * number},
                      {"accesses", 2'000'000 * number},
                      {"writes", 500'000 * number},
                      {"remote_tlb_flush", 24 * number},
                      {"stall_write_protect", 256'000'000 * number},
                      {"stall_lock", 8'000'000 * number},
                      {"stall_flush", 800'000 * number},
                      {"stall_invalidation", 0},
                      {"stall_ring_full", 0},
                      {"stall_split", 0},
                      {"pages_1g", 0},
                      {"pages_2m", 1200},
                      {"pages_4k", 434'176}};
  alpha.log = {.log_id = "a634ef4070e9270eb644dd679484d356",
               .owner = "migrator-7",
               .lease = absl::Seconds(30),
               .lease_expire_time = ExampleTime(2 * number + 28),
               .open_epoch = 5,
               .sealed_epoch = 4,
               .open_page_count = 12'000,
               .sealed_page_count = 345,
               .in_flight_page_count = 8'670};
  alpha.work.push_back({.name = "operations/2f9619ff",
                        .kind = "split",
                        .state = "running",
                        .share = 0.41,
                        .words = "1.6 GiB of 4 GiB",
                        .running_time = absl::Seconds(9),
                        .remaining_time = absl::Seconds(13),
                        .lock_wait = absl::Microseconds(85),
                        .max_lock_hold = absl::Microseconds(69)});

  VmSample beta;
  beta.id = "beta";
  beta.uid = "uid-beta";
  beta.mmu = "shadow";
  beta.vcpu_count = 1;
  beta.memory_size_bytes = int64_t{1} << 30;
  beta.vcpu_state = "paused";
  beta.paused_since = ExampleTime(-60);
  beta.pause_expire_time = ExampleTime(60);
  beta.conditions.push_back({.type = "paused",
                             .since = ExampleTime(-60),
                             .message = "the vCPUs are paused; resume them"});
  beta.statistics = {{"dirty_pages", 77}, {"stall_lock", 0}};

  VmSample gamma;
  gamma.id = "gamma-with-a-name-that-is-long";
  gamma.uid = "uid-gamma";
  gamma.mmu = "stage2";
  gamma.vcpu_count = 2;
  gamma.memory_size_bytes = int64_t{64} << 20;
  gamma.vcpu_state = "idle";
  gamma.statistics = {{"dirty_pages", 0}, {"pf_taken", 20 * number}};

  sample.vms = {alpha, beta, gamma};
  return sample;
}

// The model after `count` samples.
inline TopModel ExampleModel(int count = 12) {
  TopModel model;
  for (int64_t number = 0; number < count; ++number) {
    model.Add(ExampleSample(number));
  }
  return model;
}

}  // namespace mmud::client

#endif  // CLIENT_TOP_EXAMPLE_TEST_UTIL_H_
