// The writer and the reader together: the reader returns the records that were
// written, and an error if the file is damaged.

#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/match.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "mmu_core/base/access.h"
#include "mmu_core/base/address.h"
#include "mmu_core/base/error.h"
#include "mmu_core/base/gfn_range.h"
#include "mmu_core/base/reason.h"
#include "mmu_core/guest/gpa_space.h"
#include "mmu_core/guest/guest_access.h"
#include "mmu_core/guest/random.h"
#include "mmu_core/guest/trace_replay.h"
#include "trace/trace_header.h"
#include "trace/trace_reader.h"
#include "trace/trace_record.h"
#include "trace/trace_writer.h"

namespace mmud::trace {
namespace {

using Accesses = std::vector<mmu::GuestAccess>;
using ::testing::HasSubstr;

std::string PathOf(const std::string& name) {
  const auto* const test =
      testing::UnitTest::GetInstance()->current_test_info();
  return testing::TempDir() + "/" + test->name() + "_" + name;
}

void WriteBytes(const std::string& path, const std::string& bytes) {
  std::ofstream(path, std::ios::binary | std::ios::trunc) << bytes;
}

std::string ReadBytes(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return std::string(std::istreambuf_iterator<char>(file), {});
}

TraceInfo WriteTrace(const std::string& path,
                     const std::vector<TraceRecord>& records) {
  TraceInfo info;
  info.command = "program --flag";
  info.origin = "a test";
  info.filter_lines = 3;
  auto writer = TraceWriter::Create(path, info).value();
  for (const TraceRecord& record : records) {
    EXPECT_EQ(writer->Add(record), absl::OkStatus());
  }
  return writer->Finish(records.size() + 5, /*cut_at_limit=*/true).value();
}

std::vector<TraceRecord> SomeRecords(int count) {
  mmu::Rng rng(17);
  std::vector<TraceRecord> records;
  for (int i = 0; i < count; ++i) {
    records.push_back({static_cast<TraceOp>(rng() % kTraceOps),
                       0x1ffe0000 + rng() % 100'000, 1u << (rng() % 6)});
  }
  return records;
}

Accesses Expected(const std::vector<TraceRecord>& records) {
  using mmu::AccessKind;
  Accesses accesses;
  for (const TraceRecord& r : records) {
    const auto add = [&](AccessKind kind) {
      accesses.push_back({r.address, r.size_bytes, kind});
    };
    if (r.op == TraceOp::kFetch) add(AccessKind::kExec);
    if (r.op == TraceOp::kLoad || r.op == TraceOp::kModify) {
      add(AccessKind::kRead);
    }
    if (r.op == TraceOp::kStore || r.op == TraceOp::kModify) {
      add(AccessKind::kWrite);
    }
  }
  return accesses;
}

absl::StatusOr<Accesses> ReadAll(TraceReader& reader) {
  Accesses accesses;
  mmu::GuestAccess access;
  while (true) {
    const absl::StatusOr<bool> more = reader.Next(&access);
    if (!more.ok()) return more.status();
    if (!*more) return accesses;
    accesses.push_back(access);
  }
}

absl::StatusOr<Accesses> ReadFile(const std::string& path) {
  const auto reader = TraceReader::Open(path);
  if (!reader.ok()) return reader.status();
  return ReadAll(**reader);
}

TEST(TraceFileTest, AccessesComeBackAndTheHeaderCountsThem) {
  const std::string path = PathOf("trace");
  const std::vector<TraceRecord> records = {
      {TraceOp::kLoad, 0x1000, 8},  {TraceOp::kModify, 0x1008, 4},
      {TraceOp::kStore, 0x2ffe, 4}, {TraceOp::kFetch, 0x9000, 3},
      {TraceOp::kLoad, 0x1000, 48},
  };
  const TraceInfo info = WriteTrace(path, records);
  EXPECT_EQ(info.access_count, 6u);
  EXPECT_EQ(info.record_count, 5u);
  EXPECT_EQ(info.page_count, 4u);  // 1, 2, 3 and 9
  EXPECT_EQ(info.seen_record_count, 10u);
  EXPECT_EQ(info.load_count, 3u);
  EXPECT_EQ(info.store_count, 2u);
  EXPECT_EQ(info.fetch_count, 1u);
  EXPECT_TRUE(info.cut_at_limit);

  const auto reader = TraceReader::Open(path).value();
  EXPECT_EQ(reader->info(), info);
  EXPECT_EQ(reader->file_bytes(), ReadBytes(path).size());
  EXPECT_EQ(ReadAll(*reader).value(), Expected(records));
}

TEST(TraceFileTest, ManyBlocksRewindAndVerify) {
  const std::string path = PathOf("trace");
  const std::vector<TraceRecord> records = SomeRecords(350'000);
  WriteTrace(path, records);
  const auto reader = TraceReader::Open(path).value();
  EXPECT_EQ(reader->Verify(), absl::OkStatus());
  const Accesses expected = Expected(records);
  EXPECT_EQ(ReadAll(*reader).value(), expected);
  mmu::GuestAccess access;
  EXPECT_FALSE(reader->Next(&access).value());  // stays at the end
  ASSERT_EQ(reader->Rewind(), absl::OkStatus());
  EXPECT_EQ(ReadAll(*reader).value(), expected);
}

TEST(TraceFileTest, RewindInTheMiddleOfAModifyForgetsItsStore) {
  const std::string path = PathOf("trace");
  WriteTrace(path, {{TraceOp::kModify, 0x10, 4}});
  const auto reader = TraceReader::Open(path).value();
  mmu::GuestAccess access;
  ASSERT_TRUE(reader->Next(&access).value());
  ASSERT_EQ(reader->Rewind(), absl::OkStatus());
  EXPECT_EQ(ReadAll(*reader).value().size(), 2u);
}

TEST(TraceFileTest, TraceWithoutAccessesIsValidAndEmpty) {
  const std::string path = PathOf("trace");
  WriteTrace(path, {});
  EXPECT_EQ(ReadFile(path).value(), Accesses{});
}

TEST(TraceFileTest, EveryFlippedByteIsAnError) {
  const std::string path = PathOf("trace");
  WriteTrace(path, SomeRecords(40));
  const std::string good = ReadBytes(path);
  const std::string bad_path = PathOf("bad");
  for (size_t i = 0; i < good.size(); ++i) {
    for (const int flip : {0x01, 0x80, 0xff}) {
      std::string bad = good;
      bad[i] = static_cast<char>(bad[i] ^ flip);
      WriteBytes(bad_path, bad);
      const absl::Status status = ReadFile(bad_path).status();
      ASSERT_TRUE(absl::IsDataLoss(status) || absl::IsInvalidArgument(status))
          << "byte " << i << ": " << status;
      ASSERT_TRUE(absl::StrContains(status.message(), bad_path) &&
                  absl::StrContains(status.message(), "byte "))
          << status;
    }
  }
}

TEST(TraceFileTest, EveryTruncationIsAnError) {
  const std::string path = PathOf("trace");
  WriteTrace(path, SomeRecords(40));
  const std::string good = ReadBytes(path);
  const std::string bad_path = PathOf("bad");
  for (size_t size = 0; size < good.size(); ++size) {
    WriteBytes(bad_path, good.substr(0, size));
    const absl::Status status = ReadFile(bad_path).status();
    ASSERT_TRUE(absl::IsDataLoss(status) || absl::IsInvalidArgument(status))
        << size << " bytes: " << status;
  }
}

TEST(TraceFileTest, BytesBehindTheLastBlockAreAnError) {
  const std::string path = PathOf("trace");
  WriteTrace(path, SomeRecords(40));
  const std::string good = ReadBytes(path);
  for (const size_t extra : {1u, 19u, 20u, 4096u}) {
    WriteBytes(path, good + std::string(extra, '\0'));
    EXPECT_TRUE(absl::IsDataLoss(ReadFile(path).status())) << extra;
  }
}

TEST(TraceFileTest, MissingLastBlockIsAnErrorThatSaysSo) {
  const std::string path = PathOf("trace");
  const TraceInfo info = WriteTrace(path, SomeRecords(40));
  WriteBytes(path, ReadBytes(path).substr(0, HeaderBytes(info)));
  EXPECT_THAT(std::string(ReadFile(path).status().message()),
              HasSubstr("blocks are missing"));
}

TEST(TraceFileTest, ErrorStaysUntilRewind) {
  const std::string path = PathOf("trace");
  WriteTrace(path, SomeRecords(400'000));
  WriteBytes(path, ReadBytes(path).substr(0, ReadBytes(path).size() - 1));
  const auto reader = TraceReader::Open(path).value();
  EXPECT_TRUE(absl::IsDataLoss(reader->Verify()));
  mmu::GuestAccess access;
  EXPECT_TRUE(absl::IsDataLoss(reader->Next(&access).status()));
  ASSERT_EQ(reader->Rewind(), absl::OkStatus());
  EXPECT_TRUE(reader->Next(&access).value());
}

TEST(TraceFileTest, WhateverIsWrongWithAPathThereIsNoSuchTrace) {
  const std::string file = PathOf("a-file");
  std::ofstream(file) << "x";
  const std::string pipe = PathOf("pipe");
  const std::string ring = PathOf("ring");
  std::remove(pipe.c_str());
  std::remove(ring.c_str());
  ASSERT_EQ(mkfifo(pipe.c_str(), 0600), 0);
  ASSERT_EQ(symlink(ring.c_str(), ring.c_str()), 0);
  for (const std::string& path :
       {PathOf("absent"), testing::TempDir(), std::string("/dev/zero"), pipe,
        ring, file + "/below", PathOf(std::string(255, 'a')) + "a",
        PathOf(std::string(5000, 'a')), std::string()}) {
    const absl::Status status = TraceReader::Open(path).status();
    EXPECT_TRUE(absl::IsNotFound(status)) << status;
    EXPECT_EQ(mmu::DetailOf(status).reason, mmu::Reason::kTraceNotFound)
        << status;
    EXPECT_LT(status.message().size(), 400u) << "what is wrong stays visible";
  }
}

TEST(TraceFileTest, ALackOfDescriptorsIsNoFaultOfTheFile) {
  const std::string path = PathOf("a-file");
  std::ofstream(path) << "x";
  rlimit before = {};
  ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &before), 0);
  const rlimit none = {0, before.rlim_max};
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &none), 0);
  const absl::Status status = TraceReader::Open(path).status();
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &before), 0);
  EXPECT_TRUE(absl::IsResourceExhausted(status)) << status;
  EXPECT_EQ(mmu::DetailOf(status).reason, mmu::Reason::kLimitExceeded);
}

TEST(TraceFileTest, UnfinishedFileNeverAppearsUnderItsName) {
  const std::string path = PathOf("trace");
  {
    auto writer = TraceWriter::Create(path, {}).value();
    EXPECT_EQ(writer->Add({TraceOp::kLoad, 1, 1}), absl::OkStatus());
    EXPECT_TRUE(std::filesystem::exists(path + ".partial"));
  }
  EXPECT_FALSE(std::filesystem::exists(path));
  EXPECT_FALSE(std::filesystem::exists(path + ".partial"));
}

TEST(TraceFileTest, WriterNamesTheFileItCannotCreate) {
  const absl::Status status =
      TraceWriter::Create("/nonexistent/folder/trace", {}).status();
  EXPECT_TRUE(absl::IsNotFound(status)) << status;
  EXPECT_THAT(std::string(status.message()),
              HasSubstr("/nonexistent/folder/trace"));
}

TEST(TraceFileTest, WriterRefusesImpossibleSizes) {
  auto writer = TraceWriter::Create(PathOf("trace"), {}).value();
  EXPECT_TRUE(absl::IsInvalidArgument(writer->Add({TraceOp::kLoad, 1, 0})));
  EXPECT_TRUE(absl::IsInvalidArgument(
      writer->Add({TraceOp::kLoad, 1, kMaxAccessBytes + 1})));
}

TEST(TraceFileTest, OverlongTextsAreCut) {
  const std::string path = PathOf("trace");
  TraceInfo info;
  info.command = std::string(100'000, 'x');
  auto writer = TraceWriter::Create(path, info).value();
  ASSERT_TRUE(writer->Finish(0, /*cut_at_limit=*/false).ok());
  EXPECT_EQ(TraceReader::Open(path).value()->info().command,
            std::string(kMaxHeaderTextBytes, 'x'));
}

TEST(TraceFileTest, ReplaysOnAVcpuInAsManyPagesAsTheHeaderSays) {
  const std::string path = PathOf("trace");
  const TraceInfo info = WriteTrace(path, SomeRecords(10'000));
  const auto share =
      mmu::GpaSpace::Create({mmu::GfnRange::Of(mmu::Gfn(512), 1000)});
  mmu::TraceReplaySource source(TraceReader::Open(path).value(), *share, {});
  mmu::GuestAccess access;
  uint64_t accesses = 0;
  while (source.Next(&access)) ++accesses;
  EXPECT_EQ(source.status(), absl::OkStatus());
  EXPECT_GE(accesses, info.access_count);  // page crossings count twice
  EXPECT_EQ(source.first_touches(), info.page_count);
}

}  // namespace
}  // namespace mmud::trace
