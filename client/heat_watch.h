// Watches which memory of a VM is hot, by the VM's ager, for as long as a
// migration takes.

#ifndef CLIENT_HEAT_WATCH_H_
#define CLIENT_HEAT_WATCH_H_

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "absl/types/optional.h"
#include "client/mmu_client/aging_client.h"
#include "client/send_order.h"
#include "mmud/v1/aging_service.pb.h"

namespace mmud::client {

// Pages that were used in a window of time. A value.
struct YoungPages {
  int64_t young_count = 0;
  int64_t old_count = 0;
};

// The ager is on from Start to Stop, which gives it back its former settings. A
// process that dies in between leaves it on. This harms nothing but takes a
// share of a processor. The next watch of the same VM then switches it off when
// it stops. Thread-compatible.
class HeatWatch {
 public:
  // `client` outlives this object. `vm` is a name, `vms/{vm}`.
  HeatWatch(AgingClient* client, std::string vm);
  // Stops.
  ~HeatWatch();
  HeatWatch(const HeatWatch&) = delete;
  HeatWatch& operator=(const HeatWatch&) = delete;

  absl::Status Start();

  // Waits until two generations have ended since the call. Memory that is in
  // use all the time was found young by one of them. DEADLINE_EXCEEDED after
  // `limit`.
  absl::Status AwaitTwoGenerations(absl::Duration limit);

  // Reads the whole list of memory that was ever found young, coldest first.
  // Empty if there is no generation yet.
  absl::StatusOr<std::vector<MemoryHeat>> Read();

  // The pages used within `window` of the newest generation's end.
  absl::StatusOr<YoungPages> CountYoung(absl::Duration window);

  absl::Status Stop();

 private:
  // The number of the newest generation that has ended; 0: none.
  absl::StatusOr<int64_t> NewestEnded();

  AgingClient* const client_;
  const std::string vm_;
  absl::optional<v1::AgerSettings> former_;  // set while started
};

}  // namespace mmud::client

#endif  // CLIENT_HEAT_WATCH_H_
