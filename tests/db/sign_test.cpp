// Signatures: what the key's owner vouched for is given out, and nothing else.
#include "db/sign.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sqlite3.h>

#include "db/db.h"
#include "tests/db/records.h"

namespace kgen {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing::sample_device;
using testing::sample_object;
using testing::sample_op;
using testing::sample_problem;
using testing::sample_trial;
using testing::sample_winner;
using testing::TempFolder;

PrivateKey key_of(unsigned char seed) {
  PrivateKey key;
  key.seed.fill(seed);
  return key;
}

TEST(Keys, TextsAreReadBackAndMixedUpOnesAreNamed) {
  const PrivateKey key = PrivateKey::generate();
  EXPECT_NE(key.text(), PrivateKey::generate().text());
  EXPECT_EQ(PrivateKey::parse(key.text() + "\n").value().seed, key.seed);
  const PublicKey shared = key.public_key();
  EXPECT_EQ(PublicKey::parse("  " + shared.text() + "\n").value().bytes, shared.bytes);
  EXPECT_THAT(PublicKey::parse(key.text()).error().message, HasSubstr("private key, which stays"));
  EXPECT_THAT(PrivateKey::parse(shared.text()).error().message, HasSubstr("takes the private one"));
  for (const std::string& text : {std::string(), std::string("kgen-public:"), shared.text() + "0",
                                  shared.text().substr(0, 75), "kgen-public:" + std::string(64, 'g')})
    EXPECT_FALSE(PublicKey::parse(text)) << text;
}

TEST(Keys, TheSignatureIsEd25519) {
  // RFC 8032, 7.1, test 2.
  const auto key =
      PrivateKey::parse("kgen-private:4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb").value();
  EXPECT_EQ(key.public_key().text(), "kgen-public:3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c");
  const Signature signature = sign(key, "r");
  EXPECT_EQ(signature[0], std::byte{0x92});
  EXPECT_EQ(signature[63], std::byte{0x00});
  EXPECT_EQ(signature[62], std::byte{0x0c});
  EXPECT_TRUE(is_signed(key.public_key(), "r", signature));
  EXPECT_FALSE(is_signed(key.public_key(), "s", signature));
  EXPECT_FALSE(is_signed(key_of(1).public_key(), "r", signature));
  EXPECT_FALSE(is_signed(key.public_key(), "r", std::span(signature).first(63)));
}

TEST(Keys, FieldsThatAreCutElsewhereGiveAnotherDigest) {
  const std::string a = "a", ab = "ab", bc = "bc", c = "c";
  EXPECT_NE(Digest().add(ab).add(c).hex(), Digest().add(a).add(bc).hex());
  EXPECT_NE(Digest().add(std::optional<int>()).add(0).hex(), Digest().add(std::optional<int>(0)).hex());
  EXPECT_EQ(Digest().add(ab).hex(), Digest().add(std::string_view(ab)).hex());
  EXPECT_EQ(Digest().hex(), "0e5751c026e543b2e8ab2eb06099daa1d1e5df47778f7787faab45cdf12fe3a8")
      << "BLAKE2b-256 of nothing";
}

class Signed : public ::testing::Test {
 protected:
  Signed() {
    Db db = Db::open(path_, DbMode::kReadWrite).value();
    device_ = db.intern_device(sample_device()).value();
    for (int m = 4; m < 7; ++m) publish(db, m, "code " + std::to_string(m));
    EXPECT_TRUE(db.sign(key_));
  }
  void publish(Db& db, int m, const std::string& code) {
    const auto problem = db.intern_problem(sample_op(), sample_problem(m)).value();
    const auto object = sample_object(code);
    EXPECT_TRUE(
        db.publish(sample_winner(problem, device_, db.record(sample_trial(problem, device_)).value(), object), object));
  }
  void sql(const std::string& text) {
    sqlite3* raw = nullptr;
    ASSERT_EQ(sqlite3_open(path_.c_str(), &raw), SQLITE_OK);
    char* error = nullptr;
    sqlite3_exec(raw, text.c_str(), nullptr, nullptr, &error);
    EXPECT_EQ(error, nullptr) << error;
    sqlite3_free(error);
    sqlite3_close(raw);
  }
  // Everything that a program with the key would take: the first refusal, or "".
  std::string refusal() {
    auto db = Db::open(path_, DbMode::kImmutable);
    if (!db) return db.error().message;
    if (const auto fits = db->require_signature(key_.public_key()); !fits) return fits.error().message;
    const auto index = db->winner_index();
    if (!index) return index.error().message;
    for (const auto& entry : index->entries) {
      const auto row = db->winner(entry.id);
      if (!row) return row.error().message;
      if (const auto object = db->object(row->winner.object_hash); !object) return object.error().message;
    }
    return "";
  }

  TempFolder folder_;
  std::string path_ = folder_.file("tuned.db");
  const PrivateKey key_ = key_of(7);
  std::int64_t device_ = 0;
};

TEST_F(Signed, WhatWasSignedIsGivenOut) {
  EXPECT_EQ(refusal(), "");
  Db db = Db::open(path_, DbMode::kImmutable).value();
  EXPECT_THAT(db.check().value(), IsEmpty());
  const auto all = db.signatures().value();
  ASSERT_EQ(all.size(), 1U);
  EXPECT_EQ(all[0].key, key_.public_key().text());
  EXPECT_EQ(all[0].fault, "");
  EXPECT_THAT(db.require_signature(key_of(8).public_key()).error().message, HasSubstr("but with another"));
}

TEST_F(Signed, TrialsThatDoNotWinMayComeAndGo) {
  {
    Db db = Db::open(path_, DbMode::kReadWrite).value();
    ASSERT_TRUE(db.record(sample_trial(1, device_, TrialStatus::kHung)));
    ASSERT_TRUE(db.record(sample_trial(1, device_)));
  }
  EXPECT_EQ(refusal(), "");
  EXPECT_TRUE(Db::open(path_, DbMode::kReadWrite).value().prune({.failures = true, .keep_top = 1}, false));
  EXPECT_EQ(refusal(), "") << "after VACUUM, too";
}

TEST_F(Signed, AnotherWinnerMakesItUnfitAndSigningAgainCuresIt) {
  {
    Db db = Db::open(path_, DbMode::kReadWrite).value();
    publish(db, 9, "code 9");
  }
  EXPECT_THAT(refusal(), HasSubstr("its winners are not those that were signed"));
  EXPECT_THAT(Db::open(path_, DbMode::kImmutable).value().signatures().value().at(0).fault,
              HasSubstr("not those that were signed"));
  ASSERT_TRUE(Db::open(path_, DbMode::kReadWrite).value().sign(key_));
  EXPECT_EQ(refusal(), "");
  EXPECT_EQ(Db::open(path_, DbMode::kImmutable).value().signatures().value().size(), 1U);
}

TEST_F(Signed, AMergeTakesNoSignatureAlong) {
  Db all = Db::open(folder_.file("all.db"), DbMode::kReadWrite).value();
  ASSERT_TRUE(all.merge(path_));
  EXPECT_THAT(all.signatures().value(), IsEmpty());
  EXPECT_THAT(all.require_signature(key_.public_key()).error().message, HasSubstr("`kgen db sign` does it"));
}

TEST_F(Signed, EveryValueThatTheRuntimeTakesIsCovered) {
  // Plans and objects with hashes made to match: XXH3 stops no one who means it.
  const std::string plan =
      R"({"constants":{},"dims":[],"dim_defaults":[],"params":[],"steps":[],"needs":["0"],"flops":"","bytes":""})";
  const std::string other = sample_object("code of another").hash;
  for (const std::string& change :
       std::vector<std::string>{"UPDATE op SET dims='m,n,k'",
                                "UPDATE op SET dim_defaults='1'",
                                "UPDATE op SET attributes=''",
                                "UPDATE op SET signature='gemm x'",
                                "UPDATE device SET name='another'",
                                "UPDATE device SET compute_units=1",
                                "UPDATE problem SET dims_key='m=1' WHERE id=1",
                                "UPDATE trial SET time_us=1 WHERE id=2",
                                "UPDATE trial SET config='another' WHERE id=3",
                                "UPDATE trial SET lds_bytes=1",
                                "DELETE FROM winner WHERE id=2",
                                "UPDATE winner SET is_default=1 WHERE id=2",
                                "UPDATE winner SET timing='graph' WHERE id=2",
                                "UPDATE winner SET trial=2 WHERE id=1",
                                "UPDATE winner SET object=2 WHERE id=1",
                                "UPDATE plan SET json='" + plan + "', hash='" + hash_text(plan) + "'",
                                "UPDATE object SET kind='host' WHERE id=1",
                                "UPDATE object SET arch='sm_80' WHERE id=3",
                                "UPDATE object SET zstd=(SELECT zstd FROM object WHERE id=2) WHERE id=1",
                                "UPDATE object SET hash='" + other + "' WHERE id=1",
                                "UPDATE signature SET manifest=manifest || 'x'",
                                "DELETE FROM signature",
                                "UPDATE signature SET signature=zeroblob(64)",
                                "UPDATE signature SET key='" + key_of(8).public_key().text() + "'"}) {
    SCOPED_TRACE(change);
    std::filesystem::copy_file(path_, folder_.file("whole.db"));
    sql("PRAGMA foreign_keys=OFF; " + change);
    EXPECT_NE(refusal(), "");
    std::filesystem::rename(folder_.file("whole.db"), path_);
    EXPECT_EQ(refusal(), "");
  }
}

TEST_F(Signed, AFileThatChangesUnderAReaderGivesOutNothingThatWasNotSigned) {
  Db db = Db::open(path_, DbMode::kImmutable).value();
  ASSERT_TRUE(db.require_signature(key_.public_key()));
  const auto index = db.winner_index().value();
  sql("UPDATE trial SET config='another'; UPDATE object SET kind='host'");
  std::size_t refused = 0;
  for (const auto& entry : index.entries) {
    const auto row = db.winner(entry.id);
    if (row) {
      EXPECT_EQ(row->trial.config, "matrix tile_m=128") << "or it is still as it was read before";
    } else {
      ++refused;
    }
  }
  EXPECT_GT(refused, 0U);
}

}  // namespace
}  // namespace kgen
