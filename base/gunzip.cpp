#include "base/gunzip.h"

#include <array>
#include <cstdint>
#include <vector>

namespace kgen {
namespace {

struct Damaged {
  const char* what;
};

class Bits {
 public:
  explicit Bits(std::string_view bytes) : bytes_(bytes) {}
  // Up to 32 bits, least significant first.
  std::uint32_t take(int count) {
    while (held_ < count) {
      if (next_ == bytes_.size()) throw Damaged{"it ends too early"};
      buffer_ |= static_cast<std::uint64_t>(static_cast<unsigned char>(bytes_[next_++])) << held_;
      held_ += 8;
    }
    const auto value = static_cast<std::uint32_t>(buffer_ & ((std::uint64_t{1} << count) - 1));
    buffer_ >>= count;
    held_ -= count;
    return value;
  }
  void align() { take(held_ % 8); }

 private:
  std::string_view bytes_;
  std::size_t next_ = 0;
  std::uint64_t buffer_ = 0;
  int held_ = 0;
};

// Canonical Huffman code: symbols in the order of their codes, and how many there are of each length.
class Huffman {
 public:
  explicit Huffman(const std::vector<std::uint8_t>& lengths) {
    for (const auto length : lengths) ++count_[length];
    count_[0] = 0;
    std::array<int, 16> start{};
    for (std::size_t l = 1; l < 15; ++l) start[l + 1] = start[l] + count_[l];
    symbols_.resize(lengths.size());
    for (std::size_t s = 0; s < lengths.size(); ++s)
      if (lengths[s] != 0) symbols_[static_cast<std::size_t>(start[lengths[s]]++)] = static_cast<int>(s);
  }
  int read(Bits& bits) const {
    int code = 0, first = 0, index = 0;
    for (std::size_t length = 1; length <= 15; ++length) {
      code |= static_cast<int>(bits.take(1));
      if (code - first < count_[length]) return symbols_[static_cast<std::size_t>(index + code - first)];
      index += count_[length];
      first = (first + count_[length]) << 1;
      code <<= 1;
    }
    throw Damaged{"it has a code that does not exist"};
  }

 private:
  std::array<int, 16> count_{};
  std::vector<int> symbols_;
};

void inflate_block(Bits& bits, const Huffman& literals, const Huffman& distances, std::string& out, std::size_t limit) {
  static constexpr std::array<std::uint16_t, 29> kLength = {3,  4,  5,  6,   7,   8,   9,   10,  11, 13,
                                                            15, 17, 19, 23,  27,  31,  35,  43,  51, 59,
                                                            67, 83, 99, 115, 131, 163, 195, 227, 258};
  static constexpr std::array<std::uint8_t, 29> kLengthBits = {0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2,
                                                               2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 0};
  static constexpr std::array<std::uint16_t, 30> kDistance = {
      1,   2,   3,   4,   5,   7,    9,    13,   17,   25,   33,   49,   65,    97,    129,
      193, 257, 385, 513, 769, 1025, 1537, 2049, 3073, 4097, 6145, 8193, 12289, 16385, 24577};
  while (true) {
    const int symbol = literals.read(bits);
    if (symbol == 256) return;
    if (out.size() >= limit) throw Damaged{"it is too large"};
    if (symbol < 256) {
      out.push_back(static_cast<char>(symbol));
      continue;
    }
    const auto l = static_cast<std::size_t>(symbol - 257);
    if (l >= kLength.size()) throw Damaged{"it has a length that does not exist"};
    const std::size_t length = kLength[l] + bits.take(kLengthBits[l]);
    const auto d = static_cast<std::size_t>(distances.read(bits));
    if (d >= kDistance.size()) throw Damaged{"it has a distance that does not exist"};
    const std::size_t distance = kDistance[d] + bits.take(d < 2 ? 0 : static_cast<int>(d / 2 - 1));
    if (distance > out.size()) throw Damaged{"it refers to bytes before its beginning"};
    for (std::size_t i = 0; i < length; ++i) out.push_back(out[out.size() - distance]);
  }
}

void inflate(Bits& bits, std::string& out, std::size_t limit) {
  for (bool last = false; !last;) {
    last = bits.take(1) != 0;
    const std::uint32_t kind = bits.take(2);
    if (kind == 0) {
      bits.align();
      const std::uint32_t length = bits.take(16);
      if ((bits.take(16) ^ length) != 0xffff) throw Damaged{"a stored block's length is wrong"};
      if (out.size() + length > limit) throw Damaged{"it is too large"};
      for (std::uint32_t i = 0; i < length; ++i) out.push_back(static_cast<char>(bits.take(8)));
    } else if (kind == 1) {
      std::vector<std::uint8_t> lengths(288, 8);
      for (std::size_t s = 144; s < 256; ++s) lengths[s] = 9;
      for (std::size_t s = 256; s < 280; ++s) lengths[s] = 7;
      inflate_block(bits, Huffman(lengths), Huffman(std::vector<std::uint8_t>(30, 5)), out, limit);
    } else if (kind == 2) {
      const std::size_t literals = bits.take(5) + 257, distances = bits.take(5) + 1, codes = bits.take(4) + 4;
      static constexpr std::array<std::uint8_t, 19> kOrder = {16, 17, 18, 0, 8,  7, 9,  6, 10, 5,
                                                              11, 4,  12, 3, 13, 2, 14, 1, 15};
      std::vector<std::uint8_t> lengths(19);
      for (std::size_t i = 0; i < codes; ++i) lengths[kOrder[i]] = static_cast<std::uint8_t>(bits.take(3));
      const Huffman code(lengths);
      lengths.clear();
      while (lengths.size() < literals + distances) {
        const int symbol = code.read(bits);
        if (symbol < 16) {
          lengths.push_back(static_cast<std::uint8_t>(symbol));
          continue;
        }
        if (symbol == 16 && lengths.empty()) throw Damaged{"it repeats nothing"};
        const std::uint8_t value = symbol == 16 ? lengths.back() : 0;
        const std::size_t count = symbol == 16 ? 3 + bits.take(2) : symbol == 17 ? 3 + bits.take(3) : 11 + bits.take(7);
        lengths.insert(lengths.end(), count, value);
      }
      if (lengths.size() > literals + distances) throw Damaged{"its code lengths run over"};
      const auto split = lengths.begin() + static_cast<std::ptrdiff_t>(literals);
      inflate_block(bits, Huffman({lengths.begin(), split}), Huffman({split, lengths.end()}), out, limit);
    } else {
      throw Damaged{"it has a block of no kind"};
    }
  }
}

std::uint32_t crc32(std::string_view bytes) {
  static const auto table = [] {
    std::array<std::uint32_t, 256> entries{};
    for (std::uint32_t i = 0; i < 256; ++i) {
      entries[i] = i;
      for (int bit = 0; bit < 8; ++bit) entries[i] = (entries[i] >> 1) ^ ((entries[i] & 1) != 0 ? 0xedb88320u : 0);
    }
    return entries;
  }();
  std::uint32_t crc = 0xffffffff;
  for (const char byte : bytes) crc = (crc >> 8) ^ table[(crc ^ static_cast<unsigned char>(byte)) & 0xff];
  return ~crc;
}

}  // namespace

bool is_gzip(std::string_view bytes) { return bytes.starts_with("\x1f\x8b"); }

Result<std::string> gunzip(std::string_view bytes, std::size_t limit) {
  try {
    Bits bits(bytes);
    if (bits.take(16) != 0x8b1f || bits.take(8) != 8) throw Damaged{"it is no gzip file"};
    const std::uint32_t flags = bits.take(8);
    bits.take(32);  // time
    bits.take(16);  // compressor, system
    if ((flags & 4) != 0)
      for (std::uint32_t extra = bits.take(16); extra > 0; --extra) bits.take(8);
    for (const std::uint32_t text : {8u, 16u})  // name, comment
      if ((flags & text) != 0)
        while (bits.take(8) != 0) {
        }
    if ((flags & 2) != 0) bits.take(16);
    std::string out;
    inflate(bits, out, limit);
    bits.align();
    if (bits.take(32) != crc32(out)) throw Damaged{"its checksum does not match"};
    if (bits.take(32) != static_cast<std::uint32_t>(out.size())) throw Damaged{"its length does not match"};
    return out;
  } catch (const Damaged& damaged) {
    return fail(ErrorKind::kBadInput, std::string("damaged gzip data: ") + damaged.what);
  }
}

}  // namespace kgen
