"""What is asked of every figure."""

import itertools

from matplotlib.text import Text

LEAST_OVERLAP = 1.0  # pixels in both directions; letters have air around them


def kept(monkeypatch, *modules):
    """The figures that modules draw from now on, as matplotlib has them; they are written all the same."""
    figures = []

    def keeping(save):
        def keep(figure, *arguments):
            figures.append(figure)
            save(figure, *arguments)

        return keep

    for module in modules:
        monkeypatch.setattr(module, "save", keeping(module.save))
    return figures


def within_and_apart(figure):
    """No text leaves the figure, and none lies on another."""
    figure.draw_without_rendering()
    hidden = set()
    for axis in itertools.chain.from_iterable((axes.xaxis, axes.yaxis) for axes in figure.axes):
        low, high = sorted(axis.get_view_interval())
        for tick in axis.get_major_ticks() + axis.get_minor_ticks():
            if not low <= tick.get_loc() <= high:
                hidden |= {tick.label1, tick.label2}
    texts = [t for t in figure.findobj(Text) if t.get_visible() and t.get_text().strip() and t not in hidden]
    boxes = [(text.get_text(), text.get_window_extent()) for text in texts]
    for name, box in boxes:
        inside = box.x0 > -1 and box.y0 > -1 and box.x1 < figure.bbox.x1 + 1 and box.y1 < figure.bbox.y1 + 1
        assert inside, f"{name!r} is cut: {box} in {figure.bbox}"
    for (one, first), (other, second) in itertools.combinations(boxes, 2):
        wide = min(first.x1, second.x1) - max(first.x0, second.x0)
        high = min(first.y1, second.y1) - max(first.y0, second.y0)
        assert min(wide, high) < LEAST_OVERLAP, f"{one!r} lies on {other!r}"
