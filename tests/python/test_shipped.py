"""kgen.open() without a path: the database that ships."""
import os
import unittest
from unittest import mock

import kgen

DB = os.environ["KGEN_TEST_DB"]


class Shipped(unittest.TestCase):
    def test_is_opened_where_no_path_is_given(self):
        with mock.patch.dict(os.environ, KGEN_SHIPPED_DB=DB), kgen.open(device="host") as shipped, kgen.open(DB, "host") as own:
            self.assertEqual(shipped.operators, own.operators)
            self.assertEqual(shipped.path, "the shipped database")

    def test_is_added_after_a_file_of_ones_own(self):
        with mock.patch.dict(os.environ, KGEN_SHIPPED_DB=DB), kgen.open(DB, "host") as own:
            own.add()

    def test_says_where_it_looked_when_there_is_none(self):
        with mock.patch.dict(os.environ, KGEN_SHIPPED_DB="/nowhere/at.db"):
            with self.assertRaisesRegex(kgen.BadDatabase, "no database was named, and KGEN_SHIPPED_DB=/nowhere/at.db"):
                kgen.open(device="host")


if __name__ == "__main__":
    unittest.main()
