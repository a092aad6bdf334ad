// Cuts off calls whose peer does not take its messages.

#ifndef SERVER_RPC_CUT_OFF_H_
#define SERVER_RPC_CUT_OFF_H_

#include <memory>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "grpcpp/server_context.h"
#include "server/rpc/timer.h"

namespace mmud {

// Belongs to one call. Thread-safe.
class CutOff {
 public:
  // `timer` and `context` must outlive the call.
  CutOff(Timer& timer, grpc::CallbackServerContext& context);
  ~CutOff();
  CutOff(const CutOff&) = delete;
  CutOff& operator=(const CutOff&) = delete;

  // Cuts the call off `patience` from now unless Disarm is called before. The
  // pending message then fails, and `status` overtakes it, without details. Of
  // several Arms the earliest time counts. Returns at once.
  void Arm(absl::Duration patience, const absl::Status& status);
  // Cancels Arm, unless the call is being cut off just now.
  void Disarm();
  // The call has ended, by itself or not; called from its OnDone, except when
  // OnDone runs inside the cut-off itself. The call is not touched any more.
  void Ended();

 private:
  struct State;  // outlives the call if the timer is about to end it

  Timer& timer_;
  const std::shared_ptr<State> state_;
};

// The status of a call whose answer was not taken for `patience`: changes that
// the call made stay made.
absl::Status AnswerNotTaken(absl::Duration patience);

}  // namespace mmud

#endif  // SERVER_RPC_CUT_OFF_H_
