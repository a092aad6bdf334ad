#include "client/text/message_json.h"

#include <cstdint>
#include <string>

#include "absl/time/time.h"
#include "google/longrunning/operations.pb.h"
#include "google/protobuf/wrappers.pb.h"
#include "google/rpc/error_details.pb.h"
#include "gtest/gtest.h"
#include "mmud/v1/split_service.pb.h"
#include "mmud/v1/vm_service.pb.h"
#include "nlohmann/json.hpp"

namespace mmud::client {
namespace {

TEST(MessageJsonTest, EveryNumberIsANumberHoweverWideItIs) {
  v1::Vm vm;
  vm.set_vcpu_count(2);                        // 32 bits
  vm.set_memory_size_bytes(INT64_C(1) << 40);  // 64 bits
  vm.add_memslots()->set_size_bytes(4096);
  vm.mutable_mapped_pages()->set_pages_4k_count(7);
  const Json json = *MessageToJson(vm);
  EXPECT_EQ(json["vcpu_count"], 2);
  EXPECT_EQ(json["memory_size_bytes"], INT64_C(1) << 40);
  EXPECT_EQ(json["memslots"][0]["size_bytes"], 4096);
  EXPECT_EQ(json["mapped_pages"]["pages_4k_count"], 7);
  // A field is shown even if it is 0.
  EXPECT_EQ(json["mapped_pages"]["pages_1g_count"], 0);
}

TEST(MessageJsonTest, NumbersInsideAnAnyAreNumbersToo) {
  google::longrunning::Operation operation;
  v1::SplitMetadata metadata;
  metadata.set_total_bytes(INT64_C(1) << 33);
  metadata.mutable_throttle()->mutable_max_lock_hold()->set_nanos(50'000);
  operation.mutable_metadata()->PackFrom(metadata);
  google::protobuf::Int64Value number;
  number.set_value(5);
  operation.mutable_response()->PackFrom(number);
  const Json json = *MessageToJson(operation);
  EXPECT_EQ(json["metadata"]["@type"],
            "type.googleapis.com/mmud.v1.SplitMetadata");
  EXPECT_EQ(json["metadata"]["total_bytes"], INT64_C(1) << 33);
  EXPECT_EQ(json["metadata"]["throttle"]["max_lock_hold"], "0.000050s");
  EXPECT_EQ(json["response"]["value"], 5);
}

TEST(MessageJsonTest, TextThatLooksLikeANumberStaysText) {
  v1::Vm vm;
  vm.set_etag("1234567890123456");
  EXPECT_EQ((*MessageToJson(vm))["etag"], "1234567890123456");
  google::rpc::ErrorInfo info;
  (*info.mutable_metadata())["limit"] = "64";
  EXPECT_EQ((*MessageToJson(info))["metadata"]["limit"], "64");
}

TEST(MessageJsonTest, DurationsAreWrittenAsInMessages) {
  EXPECT_EQ(DurationToJson(absl::ZeroDuration()), "0s");
  EXPECT_EQ(DurationToJson(absl::Microseconds(749)), "0.000749s");
  EXPECT_EQ(DurationToJson(absl::Seconds(90)), "90s");
}

TEST(MessageJsonTest, TextEndsItsLineAndSurvivesWhatIsNoUtf8) {
  EXPECT_EQ(JsonText(Json{{"a", "\xff"}}), "{\n \"a\": \"\xef\xbf\xbd\"\n}\n");
}

}  // namespace
}  // namespace mmud::client
