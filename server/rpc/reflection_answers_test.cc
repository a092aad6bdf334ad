#include "server/rpc/reflection_answers.h"

#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "google/protobuf/descriptor.pb.h"
#include "google/rpc/code.pb.h"
#include "grpc/reflection/v1alpha/reflection.pb.h"
#include "gtest/gtest.h"
#include "mmud/v1/vm_service.pb.h"

namespace mmud {
namespace {

using grpc::reflection::v1alpha::ServerReflectionRequest;
using grpc::reflection::v1alpha::ServerReflectionResponse;
using ::testing::Contains;
using ::testing::ElementsAre;

std::vector<std::string> Files(const ServerReflectionResponse& response) {
  std::vector<std::string> names;
  for (const std::string& bytes :
       response.file_descriptor_response().file_descriptor_proto()) {
    google::protobuf::FileDescriptorProto file;
    EXPECT_TRUE(file.ParseFromString(bytes));
    names.push_back(file.name());
  }
  return names;
}

class ReflectionAnswersTest : public ::testing::Test {
 protected:
  ReflectionAnswersTest() { v1::GetVmRequest::descriptor(); }

  ServerReflectionResponse Symbol(const std::string& name) {
    ServerReflectionRequest request;
    request.set_file_containing_symbol(name);
    return answers_.Answer(request);
  }

  const std::vector<std::string> services_ = {"a.B", "c.D"};
  ReflectionAnswers answers_{services_};
};

TEST_F(ReflectionAnswersTest, ListsItsServices) {
  ServerReflectionRequest request;
  request.set_host("h");
  request.set_list_services("*");
  const ServerReflectionResponse response = answers_.Answer(request);
  EXPECT_EQ(response.valid_host(), "h");
  EXPECT_EQ(response.original_request().list_services(), "*");
  ASSERT_EQ(response.list_services_response().service_size(), 2);
  EXPECT_EQ(response.list_services_response().service(0).name(), "a.B");
  EXPECT_EQ(response.list_services_response().service(1).name(), "c.D");
}

TEST_F(ReflectionAnswersTest, AFileComesFirstAndBringsItsImportsOnce) {
  const std::vector<std::string> files =
      Files(Symbol("mmud.v1.VmService.GetVm"));
  ASSERT_FALSE(files.empty());
  EXPECT_EQ(files[0], "mmud/v1/vm_service.proto");
  EXPECT_THAT(files, Contains("mmud/v1/common.proto"));
  // The same question again returns the file without its imports, since the
  // stream has sent them already.
  EXPECT_THAT(Files(Symbol("mmud.v1.VmService")),
              ElementsAre("mmud/v1/vm_service.proto"));
  EXPECT_THAT(Files(Symbol("mmud.v1.MmuCost")),
              ElementsAre("mmud/v1/common.proto"))
      << "also what came as an import";
  ServerReflectionRequest by_name;
  by_name.set_file_by_filename("mmud/v1/common.proto");
  ReflectionAnswers other(services_);
  EXPECT_EQ(Files(other.Answer(by_name))[0], "mmud/v1/common.proto");
}

TEST_F(ReflectionAnswersTest, KnowsExtensions) {
  ServerReflectionRequest request;
  request.set_all_extension_numbers_of_type("google.protobuf.MethodOptions");
  EXPECT_EQ(answers_.Answer(request)
                .all_extension_numbers_response()
                .base_type_name(),
            "google.protobuf.MethodOptions");
  request.mutable_file_containing_extension()->set_containing_type(
      "google.protobuf.MethodOptions");
  request.mutable_file_containing_extension()->set_extension_number(1);
  EXPECT_EQ(answers_.Answer(request).error_response().error_code(),
            google::rpc::NOT_FOUND);
}

TEST_F(ReflectionAnswersTest, SaysWhatItDoesNotKnow) {
  EXPECT_EQ(Symbol("no.Such").error_response().error_code(),
            google::rpc::NOT_FOUND);
  EXPECT_EQ(Symbol("no.Such").error_response().error_message(),
            "there is no symbol \"no.Such\"");
  ServerReflectionRequest request;
  request.set_file_by_filename("no.proto");
  EXPECT_EQ(answers_.Answer(request).error_response().error_code(),
            google::rpc::NOT_FOUND);
  request.set_all_extension_numbers_of_type("no.Such");
  EXPECT_EQ(answers_.Answer(request).error_response().error_code(),
            google::rpc::NOT_FOUND);
  EXPECT_EQ(answers_.Answer({}).error_response().error_code(),
            google::rpc::INVALID_ARGUMENT);
}

}  // namespace
}  // namespace mmud
