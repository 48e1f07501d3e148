"""A sample of diffusers' transformer classes, tiny: what `make reach` goes through equals the edits by hand."""

import pytest
import reach

SAMPLE = {  # what each is here for
    "QwenImageTransformer2DModel": "whole",  # sizes in factories of torch
    "OmniGenTransformer2DModel": "whole, on contents",  # a number that is in a tensor
    "PRXTransformer2DModel": "whole",  # asks whether a shape is one
    "ZImageTransformer2DModel": "whole",  # a helper that is no module keeps a list of tensors
    "Kandinsky5Transformer3DModel": "whole",  # two stacks
    "MiniMaxMusic3RVQDepthDecoder": "whole",  # returns a tensor and no output
}


@pytest.mark.parametrize("name", SAMPLE)
def test_an_operation_is_what_the_edit_by_hand_gives(name):
    rows = reach.try_class(name, operations=["skip", "parallel"])
    assert [row.traced for row in rows] == len(rows) * [SAMPLE[name]]
    assert {answer for row in rows for answer in row.answers.values()} == {"yes"}


def test_the_table_tells_right_from_refused_and_wrong():
    right = reach.Row("A", "blocks", "whole", 0.5, dict.fromkeys(reach.OPERATIONS, "yes"))
    refused = reach.Row("B", "blocks", "in part", 1.0, {"same": "yes"})
    refused.refuse("skip", ValueError("first line\nit is so"))
    wrong = reach.Row("C", "blocks", "whole", 0.1, {"same": "yes", "skip": "off by 1.0e-01"})
    text = "\n".join(reach.table_of([right, refused, wrong]))
    assert "B blocks: skip: it is so" in text
    assert "3 classes: 2 traced whole, 1 with all operations of all stacks equal\nwrong: C" in text
