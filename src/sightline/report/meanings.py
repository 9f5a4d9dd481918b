"""Texts for newcomers: what each section of the report means, in plain words."""

from __future__ import annotations

from collections.abc import Mapping

MEANINGS: Mapping[str, str] = {
    "answer": (
        "The big number is the accuracy: the share of images that the classifier labels correctly, measured on images "
        "that it has not seen before. The 95 % confidence interval (CI) is the range in which the accuracy on many "
        "more images of the same kind plausibly lies; few images give a wide interval. Compare the number with always "
        "predicting the most frequent class: a classifier that is no better has learnt nothing."
    ),
    "data": (
        "A classifier can only learn what its images show. Look for classes with few images, for files that could not "
        "be used, and for images that are much smaller than the rest. The last row of pictures shows what the network "
        "receives: if the crop cuts off what distinguishes the classes, no method can recognise it."
    ),
    "split": (
        "The images are divided into three parts. The classifier learns from the training images, the best method is "
        "selected on the validation images, and the test images are used once, at the end. If the same picture is in "
        "train and in test, the classifier can remember it, and the score is too good; this is called a leak."
    ),
    "methods": (
        "Sightline fits several methods, from trivial to complex, and selects the one with the highest accuracy on "
        "held-out images. The first rows are references: if a method that only sees file sizes or brightness is "
        "nearly as good, the photographs differ in something other than their content. If intervals overlap widely, "
        "the order may be chance."
    ),
    "folds": (
        "In cross-validation the images are divided into equal parts (folds). Each fold is predicted once by a "
        "classifier that was trained on the others, so that every image is used for the score and no image is scored "
        "by a classifier that saw it."
    ),
    "learning": (
        "The curve shows how the accuracy grows with the number of training images. Where it is still rising, more "
        "photographs help; where it is flat, cleaner labels or another method help more. The part to the right of the "
        "line is a forecast."
    ),
    "scores": (
        "Accuracy alone can mislead, above all if one class is rare. Recall: of all images of a class, the share that "
        "is found. Precision: of all images predicted as a class, the share that really belongs to it. F1 combines "
        "both. ROC AUC: the probability that an image of the class gets a higher score than an image of another class "
        "(0.5 is guessing, 1 is perfect). Calibration: if the classifier says 80 %, it should be right in 80 % of "
        "such cases. In the confusion matrix, correct predictions are on the diagonal; everything else is an error."
    ),
    "threshold": (
        "The classifier returns a probability, and a threshold turns it into a decision. A lower threshold finds more "
        "images of the positive class and raises more false alarms. Which is better depends on what a miss and a "
        "false alarm cost you."
    ),
    "mistakes": (
        "Look at the errors before you trust the number. Typical reasons: a wrong label, an image that shows both "
        "classes, a blurred or tiny object, or a kind of image that is rare in train. Wrong labels are the cheapest "
        "to repair."
    ),
    "shortcuts": (
        "If all dogs were photographed by one camera, the camera gives the class away, and a classifier may learn "
        "the camera. Its score is then far too good for photographs from another source. Take new photographs, or "
        "convert all files in the same way."
    ),
    "labels": (
        "A few wrong labels are in almost every dataset. An image is suspect if similar images have another label. "
        "Look at each: correct the label if it is wrong, and keep the image if it is only difficult."
    ),
    "outliers": (
        "An image that resembles no other may be in the wrong folder, damaged, or a rare but correct example. "
        "Remove what does not belong to the task, and collect more of what does."
    ),
    "pretraining": (
        "A pretrained network has seen many everyday things. Classes that it already knows need few of your "
        "photographs; for classes that it does not know, more photographs help."
    ),
    "neighbours": (
        "The classifier turns each image into a list of numbers (features); images with similar numbers look alike to "
        "it. If an error has neighbours of the wrong class, the classifier considers it a typical image of that "
        "class."
    ),
    "slices": (
        "An average can hide a group of images on which the classifier is much worse, such as dark or small ones. "
        "Each row tests one group. With many tests some differences arise by chance, and the corrected p value takes "
        "this into account."
    ),
    "robustness": (
        "New photographs are rarely as good as those in a dataset: they are blurred, dark, noisy, small or turned. "
        "Here the same images were altered in these ways and classified again. Where the accuracy falls, take better "
        "photographs in use, collect such images, or train with the matching augmentation."
    ),
    "heatmaps": (
        "A heatmap marks the parts of an image that raise the score of the predicted class. It can look plausible and "
        "still be wrong; these checks test whether it says something about this classifier. Trust the pictures only "
        "as far as they pass."
    ),
    "correct": (
        "A classifier can be right for the wrong reason, for example because of the background or a watermark. If the "
        "heatmaps of correct predictions lie outside the object, expect more errors on photographs from another "
        "source."
    ),
    "uncertainty": (
        "A useful classifier knows when it may be wrong. A prediction set names several classes if one is not enough "
        "for the promised certainty. An image marked as out-of-distribution resembles no training image, and its "
        "prediction means little."
    ),
    "reproduce": (
        "Everything that is needed to get the same result again: the method, its settings, the versions of the "
        "software and the commands. Copy this section into the methods part of a thesis or paper."
    ),
}
"""Id of the section → text."""
