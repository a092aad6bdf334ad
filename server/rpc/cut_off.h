// An end for calls whose peer does not take what is sent to it.

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
  // Both outlive the call.
  CutOff(Timer& timer, grpc::CallbackServerContext& context);
  ~CutOff();
  CutOff(const CutOff&) = delete;
  CutOff& operator=(const CutOff&) = delete;

  // Ends the call `patience` from now unless Disarm comes before: `status`,
  // which can carry no details then, goes past what the peer does not take, and
  // that fails. Of several the earliest counts. Returns at once.
  void Arm(absl::Duration patience, const absl::Status& status);
  // Takes back what Arm said, unless it is being done now.
  void Disarm();
  // The call has ended, of itself or not: comes from its OnDone, unless this
  // goes there. Nothing is done to it any more.
  void Ended();

 private:
  struct State;  // outlives the call if the timer is about to end it

  Timer& timer_;
  const std::shared_ptr<State> state_;
};

// Of a call whose answer was not taken for `patience`: what it did stays done.
absl::Status AnswerNotTaken(absl::Duration patience);

}  // namespace mmud

#endif  // SERVER_RPC_CUT_OFF_H_
