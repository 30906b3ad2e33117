"""Small trees of the published sets: their true layouts, column names and oddities, with pictures of our own."""

import io
import json
import warnings
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import openpyxl
import pytest
from pydicom import uid
from pydicom.dataset import FileDataset, FileMetaDataset

from cxrtool.data.datasets import ADAPTERS
from cxrtool.data.datasets.record import Record, Request

COHEN = (
    "patientid,offset,sex,age,finding,RT_PCR_positive,survival,intubated,intubation_present,went_icu,in_icu,"
    "needed_supplemental_O2,extubated,temperature,pO2_saturation,leukocyte_count,neutrophil_count,lymphocyte_count,view,"
    "modality,date,location,folder,filename,doi,url,license,clinical_notes,other_notes,\n"
)


def picture(seed: int, dtype: type = np.uint8, height: int = 40, width: int = 48) -> np.ndarray:
    generator = np.random.default_rng(seed)
    grey = cv2.resize(generator.random((5, 6)).astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC)
    return (np.clip(grey, 0, 1) * np.iinfo(dtype).max).astype(dtype)


class Tree:
    """A folder that is filled file by file; every picture differs."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.count = 0

    def text(self, name: str, text: str, encoding: str = "utf-8") -> None:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode(encoding))

    def pictures(self, *names: str, dtype: type = np.uint8, side: int | None = None) -> None:
        for name in names:
            path = self.root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            self.count += 1
            height, width = (side, side) if side else (40, 48)
            assert cv2.imwrite(str(path), picture(self.count, dtype, height, width))

    def dicom(self, name: str, **tags: object) -> None:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        self.count += 1
        meta = FileMetaDataset()
        meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
        meta.MediaStorageSOPClassUID = uid.ComputedRadiographyImageStorage
        meta.MediaStorageSOPInstanceUID = f"1.2.{self.count}"
        dataset = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
        pixels = picture(self.count)
        values = {
            "SOPClassUID": meta.MediaStorageSOPClassUID,
            "SOPInstanceUID": f"1.2.{self.count}",
            "Modality": "CR",
            "Rows": 40,
            "Columns": 48,
            "SamplesPerPixel": 1,
            "PhotometricInterpretation": "MONOCHROME2",
            "BitsAllocated": 8,
            "BitsStored": 8,
            "HighBit": 7,
            "PixelRepresentation": 0,
            "PixelData": pixels.tobytes(),
        }
        with warnings.catch_warnings():
            # Ages without a unit, as the set has them, are not what the standard wants.
            warnings.simplefilter("ignore")
            for key, value in (values | tags).items():
                setattr(dataset, key, value)
            dataset.save_as(path, enforce_file_format=True)


def workbook(rows: list[list[str]]) -> bytes:
    """An Excel workbook: what has a number's digits is stored as a number, and an empty cell not at all."""
    book = openpyxl.Workbook()
    for number, row in enumerate(rows, 1):
        for column, cell in enumerate(row, 1):
            if cell:
                book.active.cell(number, column, int(cell) if cell.isdecimal() else cell)
    buffer = io.BytesIO()
    book.save(buffer)
    return buffer.getvalue()


def _cohen(tree: Tree) -> None:
    rows = [
        '2,0,M,65,Pneumonia/Viral/COVID-19,Y,Y,N,N,N,N,Y,,,,,,,PA,X-ray,"January 22, 2020",'
        '"Ho Chi Minh City, Vietnam",images,auntminnie-a.jpeg,10.1056/nejmc2001272,https://x,,"Fever, cough",,',
        "2,3,M,65,Pneumonia/Viral/COVID-19,Y,Y,,,,,,,,,,,,AP Supine,X-ray,2020,,images,auntminnie-b.jpeg,,,,,,",
        "13,4,F,,No Finding,,,,,,,,,,,,,,AP,X-ray,2020,,images,normal (1).png,,,,,,",
        "13,4,F,,Pneumonia/Bacterial/Streptococcus,,,,,,,,,,,,,,L,X-ray,2020,,images,side.png,,,,,,",
        "17,9,M,54.0,Pneumonia/Viral/COVID-19,,,,,,,,,,,,,,Axial,CT,2020,,volumes,scan.nii.gz,,,,,,",
        "18,,,,todo,,,,,,,,,,,,,,PA,X-ray,,,images,todo.png,,,,,,",
        "19,,,,Pneumonia,,,,,,,,,,,,,,AP,X-ray,,,images,gone.png,,,,,,",
    ]
    tree.text("metadata.csv", COHEN + "\n".join(rows) + "\n")
    tree.pictures(
        *(f"images/{name}" for name in ("auntminnie-a.jpeg", "auntminnie-b.jpeg", "normal (1).png", "side.png"))
    )
    tree.text("volumes/scan.nii.gz", "x")
    tree.text(
        "annotations/covid-severity-scores.csv", "filename,geographic_mean,opacity_mean\nauntminnie-a.jpeg,5.3,4.0\n"
    )


def _figure1(tree: Tree) -> None:
    header = (
        "patientid,offset,sex,age,finding,survival,temperature,pO2 saturation,view,modality,artifacts/distortion,notes"
    )
    rows = [
        "COVID-00001,13,M,33,COVID-19,,,58,AP erect,X-ray,,Saturation 58%",
        "COVID-00003a,8,M,28,,,39.1,90,AP erect,X-ray,,",
        'COVID-00003b,8,M,28,No finding,,38°,,PA,X-ray,,"late, 38° – dry"'.replace("–", "-"),
        "COVID-00021,,M,50+,Pneumonia,,,,,X-ray,,",
        "COVID-00099,,,,COVID-19,,,,,X-ray,,",
    ]
    tree.text("metadata.csv", "\n".join([header, *rows]) + "\n", "latin-1")
    tree.pictures(
        "images/COVID-00001.jpg", "images/COVID-00003a.jpg", "images/COVID-00003b.png", "images/COVID-00021.JPG"
    )


def _actualmed(tree: Tree) -> None:
    header = (
        "patientid,offset,sex,age,finding,survival,temperature,pO2 saturation,view,modality,imagename,"
        "artifacts/distortion,notes"
    )
    rows = [
        'ANON196,,,,,,,,PA,X-ray,CR.1.2.840.png,,"Inconclusive, date taken (YYYYMMDD): 20200313"',
        "ANON56,,,,No finding,,,,PA,X-ray,CR.1.2.841.png,,",
        "ANON196,,,,COVID-19,,,,AP,X-ray,DX.1.2.842.png,,",
    ]
    tree.text("metadata.csv", "\n".join([header, *rows]) + "\n")
    tree.pictures("images/CR.1.2.840.png", "images/CR.1.2.841.png", "images/DX.1.2.842.png")


def _kaggle(tree: Tree) -> None:
    names = (
        "train/PNEUMONIA/person9_bacteria_41.jpeg",
        "train/PNEUMONIA/person100_virus_184.jpeg",
        "train/NORMAL/IM-0115-0001.jpeg",
        "train/NORMAL/NORMAL2-IM-0335-0001.jpeg",
        "test/PNEUMONIA/person100_bacteria_475.jpeg",
        "test/NORMAL/IM-0001-0001.jpeg",
        "val/PNEUMONIA/unnamed.jpeg",
        "val/NORMAL/NORMAL2-IM-1427-0001.jpeg",
    )
    tree.pictures(*(f"chest_xray/{name}" for name in names))
    tree.text("chest_xray/train/.DS_Store", "x")
    tree.text("__MACOSX/train/._x", "x")


def _radiography(tree: Tree) -> None:
    base = "COVID-19_Radiography_Dataset"
    for folder, stem in (("COVID", "COVID"), ("Lung_Opacity", "Lung_Opacity"), ("Normal", "Normal")):
        tree.pictures(*(f"{base}/{folder}/images/{stem}-{n}.png" for n in (1, 2)), side=299)
        masks = np.zeros((256, 256), np.uint8)
        masks[60:200, 40:220] = 255
        (tree.root / base / folder / "masks").mkdir()
        assert cv2.imwrite(str(tree.root / base / folder / "masks" / f"{stem}-1.png"), masks)
    tree.pictures(f"{base}/Viral Pneumonia/images/Viral Pneumonia-1.png", side=299)
    for label, stem in (("COVID", "COVID"), ("Normal", "NORMAL")):
        rows = [["FILE NAME", "FORMAT", "SIZE", "URL"], [f"{stem}-1", "PNG", "256*256", f"https://{label.lower()}.org"]]
        (tree.root / base / f"{label}.metadata.xlsx").write_bytes(workbook(rows))
    tree.text(f"{base}/README.md.txt", "x")


def _rsna(tree: Tree) -> None:
    tree.text(
        "stage_2_train_labels.csv",
        "patientId,x,y,width,height,Target\n"
        "a1,,,,,0\nb2,264.0,152.0,213.0,379.0,1\nb2,562.0,152.0,256.0,453.0,1\nc3,,,,,0\nd4,,,,,0\n",
    )
    tree.text(
        "stage_2_detailed_class_info.csv",
        "patientId,class\na1,No Lung Opacity / Not Normal\nb2,Lung Opacity\nb2,Lung Opacity\nc3,Normal\nd4,Normal\n",
    )
    for name in ("a1", "b2", "c3"):
        tree.dicom(
            f"stage_2_train_images/{name}.dcm", PatientID=name, PatientAge="51", PatientSex="F", ViewPosition="PA"
        )
    tree.dicom("stage_2_test_images/t9.dcm")


PADCHEST = (
    ",ImageID,ImageDir,StudyDate_DICOM,StudyID,PatientID,PatientBirth,PatientSex_DICOM,ViewPosition_DICOM,Projection,"
    "MethodProjection,Pediatric,Modality_DICOM,Manufacturer_DICOM,PhotometricInterpretation_DICOM,BitsStored_DICOM,"
    "WindowCenter_DICOM,WindowWidth_DICOM,ReportID,Report,MethodLabel,Labels\n"
)


def _padchest(tree: Tree) -> None:
    def row(
        image: str, folder: str, patient: str, birth: str, view: str, labels: str, colour: str = "MONOCHROME2"
    ) -> str:
        start = f"0,{image},{folder},20140915,s1,{patient},{birth},M,POSTEROANTERIOR,{view},Manual review"
        return f'{start},No,CR,ImagingDynamics,{colour},12,2048,4096,4765777,texto libre,Physician,"{labels}"\n'

    tree.text(
        "PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv",
        PADCHEST
        + row("one_1.png", "0", "p1", "1938.0", "PA", "['normal']")
        + row("two_2.png", "36.0", "p1", "1938.0", "AP_horizontal", "['pneumonia', ' kyphosis', 'pneumonia', '']")
        + row("three_3.png", "0", "p2", "", "PA", "['nodule', 'cardiomegaly']", "MONOCHROME1")
        + row("side_4.png", "0", "p2", "", "L", "['normal']")
        + row("rib_5.png", "0", "p3", "1950.0", "COSTAL", "['normal']")
        + row("out_6.png", "0", "p3", "1950.0", "EXCLUDE", "['normal']")
        + row("bad_7.png", "0", "p4", "1950.0", "PA", "['exclude']")
        + row("torn_8.png", "0", "p4", "1950.0", "AP", "['unchanged']")
        + row("gone_9.png", "0", "p5", "1950.0", "AP", ""),
    )
    tree.pictures("0/one_1.png", "36/two_2.png", "images-224/three_3.png", "0/side_4.png", dtype=np.uint16)
    tree.pictures("0/torn_8.png", dtype=np.uint16)
    torn = tree.root / "0" / "torn_8.png"
    torn.write_bytes(torn.read_bytes()[:-300])


def _bimcv(tree: Tree) -> None:
    def pair(name: str, values: np.ndarray, told: dict[str, object] | None) -> None:
        subject, session = name.split("_")[:2]
        path = tree.root / subject / session / "mod-rx" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        assert cv2.imwrite(f"{path}.png", values)
        if told is not None:
            tags = {key: {"vr": vr, "Value": value} for key, (vr, value) in told.items()}
            path.with_name(f"{name}.json").write_text(json.dumps(tags))

    tree.text(
        "participants.tsv",
        "participant\tmodality_dicom\tbody_parts\tage\tgender\n"
        "sub-S1\t['DX']\t[['chest']]\t['57']\tM\nsub-S2\t['CR', 'CT']\t[['chest']]\t['60', '61']\tNone\n",
    )
    tree.text(
        "derivatives/labels/labels_covid_posi.tsv",
        "\tPatientID\tReportID\tReport\tLabels\tLocalizations\n"
        "0\tsub-S1\tses-E1\tinforme\t['COVID 19', 'pneumonia']\t[]\n1\tsub-S2\tses-E3\tinforme\t['normal']\t[]\n",
    )
    tree.text("derivatives/labels/tree_term_CUI_counts_image_covid_posi.csv", "a,b\n")
    stored = (picture(70, np.uint16) >> 4).astype(np.uint16)
    window = {"00281050": ("DS", [2000]), "00281051": ("DS", [1200]), "00280101": ("US", [12])}
    plain = {"00280004": ("CS", ["MONOCHROME2"]), "00100040": ("CS", ["F"]), "00101010": ("AS", ["061Y"]), **window}
    turned = plain | {"00280004": ("CS", ["MONOCHROME1"]), "00281050": ("DS", [2095])}
    pair("sub-S1_ses-E1_run-1_bp-chest_vp-ap_dx", stored, plain)
    pair("sub-S2_ses-E3_acq-1_run-1_bp-chest_vp-pa_cr", 4095 - stored, turned)
    pair("sub-S2_ses-E3_run-2_bp-chest_vp-ll_cr", stored, plain)
    pair("sub-S2_ses-E4_run-1_bp-abdomen_cr", stored, plain)
    pair("sub-S2_ses-E4_run-2_bp-chest_cr", stored, None)
    tree.text("sub-S2/ses-E5/mod-ct/sub-S2_ses-E5_run-1_bp-chest_ct.nii.gz", "x")


def _covidx(tree: Tree) -> None:
    tree.text(
        "train_COVIDx9A.txt",
        "1 auntminnie-a.jpeg COVID-19 cohen\n"
        "COVID-00003b COVID-00003b.jpg pneumonia fig1\n"
        "COVID 15 COVID(15).png COVID-19 sirm\n"
        "9 normal (2).png normal cohen\n"
        "ANON45 gone.png COVID-19 actmed\n\n",
    )
    tree.text("test_COVIDx9A.txt", "0000a175 0000a175.png normal rsna\r\n3 old.jpg pneumonia\r\n")
    tree.text("requirements.txt", "numpy\n")
    tree.pictures("train/auntminnie-a.jpeg", "train/COVID-00003b.jpg", "train/COVID-15.png", "train/normal (2).png")
    tree.pictures("test/0000a175.png", "test/old.jpg")


def _covidgr(tree: Tree) -> None:
    tree.pictures("P/p1.jpg", "N/n1.jpg")
    tree.text("severity.csv", "Name,Severity\np1.jpg,MILD\n")


def raw_film(seed: int) -> np.ndarray:
    """Samples of JSRT: 12 bits, dark film high."""
    return cv2.resize(4095 - (picture(seed, np.uint16) >> 4), (2048, 2048), interpolation=cv2.INTER_NEAREST)


def _half(height: int, width: int, left: bool) -> np.ndarray:
    mask = np.zeros((height, width), np.uint8)
    mask[height // 4 : 3 * height // 4, slice(2, width // 2 - 2) if left else slice(width // 2 + 2, width - 2)] = 255
    return mask


def _montgomery(tree: Tree) -> None:
    base = "MontgomerySet"
    for number, digit in ((1, 0), (2, 1), (3, 0)):
        name = f"MCUCXR_{number:04}_{digit}"
        tree.pictures(f"{base}/CXR_png/{name}.png")
        tree.text(
            f"{base}/ClinicalReadings/{name}.txt",
            f"Patient's Sex: {'FM'[digit]}\nPatient's Age: 0{26 + number}Y\n{'improved TB' if digit else 'normal'}  \n",
        )
        for folder in ("leftMask", "rightMask"):
            path = tree.root / base / "ManualMask" / folder / f"{name}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            # On a radiograph the left lung is to the right.
            if (number, folder) != (3, "leftMask"):
                assert cv2.imwrite(str(path), _half(40, 48, folder == "rightMask"))
    tree.text(f"{base}/NLM-MontgomeryCXRSet-ReadMe.pdf", "%PDF")


def _shenzhen(tree: Tree) -> None:
    base = "ChinaSet_AllFiles"
    readings = {
        "CHNCXR_0001_0": "male 45yrs\nnormal",
        "CHNCXR_0002_1": "Female, 32yrs\nSTB, right upper\n",
        "CHNCXR_0003_1": "male 73days\n\nPTB",
    }
    for name, text in readings.items():
        tree.pictures(f"{base}/CXR_png/{name}.png")
        tree.text(f"{base}/ClinicalReadings/{name}.txt", text)
    for name in ("CHNCXR_0001_0", "CHNCXR_0002_1"):
        path = tree.root / base / "mask" / f"{name}_mask.png"
        path.parent.mkdir(exist_ok=True)
        assert cv2.imwrite(str(path), _half(40, 48, True) | _half(40, 48, False))
    tree.text(f"{base}/CXR_png/Thumbs.db", "x")


def _jsrt(tree: Tree) -> None:
    from PIL import Image

    for seed, name in enumerate(("JPCLN001", "JPCNN001")):
        path = tree.root / "All247images" / f"{name}.IMG"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(raw_film(seed).astype(">u2").tobytes())
        for number, lung in enumerate(("left lung", "right lung", "heart")):
            place = tree.root / f"scr/fold{seed + 1}/masks/{lung}"
            place.mkdir(parents=True)
            # The SCR data base writes GIFs of 1024 pixels.
            Image.fromarray(_half(1024, 1024, number == 1)).save(place / f"{name}.gif")
        tree.pictures(f"BSE_JSRT/{name}.png", dtype=np.uint16, side=1024)
    (tree.root / "All247images" / "JPCNN002.IMG").write_bytes(b"\x07\x6a" * 1000)
    tree.text(
        "Clinical_Information/CLNDAT_EN.txt",
        "JPCLN001.IMG\t5\t15\t53\tFemale\t1634\t692\tmalignant\tl.upper lobe(S1+2)\tlung cancer(adenocarcinoma)\n",
        "latin-1",
    )
    tree.text("Clinical_Information/CNNDAT_EN.TXT", "JPCNN001.IMG\t60\tMale\tnon-nodule\n", "latin-1")


TREES: dict[str, Callable[[Tree], None]] = {
    "actualmed": _actualmed,
    "bimcv": _bimcv,
    "cohen": _cohen,
    "covidgr": _covidgr,
    "covidx": _covidx,
    "figure1": _figure1,
    "jsrt": _jsrt,
    "kaggle-pneumonia": _kaggle,
    "montgomery": _montgomery,
    "padchest": _padchest,
    "radiography-db": _radiography,
    "rsna": _rsna,
    "shenzhen": _shenzhen,
}


@pytest.fixture
def published(tmp_path: Path) -> Callable[[str], Path]:
    """The tree of a published set, by the name of its adapter."""

    def build(name: str) -> Path:
        root = tmp_path / f"the {name}"
        root.mkdir()
        TREES[name](Tree(root))
        return root

    return build


@pytest.fixture
def listed() -> Callable[..., dict[str, Record]]:
    """What an adapter lists, by the path below the set."""

    def read(name: str, root: Path, request: Request | None = None) -> dict[str, Record]:
        records = list(ADAPTERS[name].read(root, request or Request()))
        assert len({record.relative for record in records}) == len(records)
        return {record.relative: record for record in records}

    return read
